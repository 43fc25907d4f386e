"""Frameworks that models may be written in; there is one, torch."""
