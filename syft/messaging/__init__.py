"""Import path of PySyft 0.2; only names are here."""
