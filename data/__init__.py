"""The data, and what unpacks them. A package with this file wins over another `data` further down Python's path."""
