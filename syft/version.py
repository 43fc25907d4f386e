"""The version of this project; it says nothing about PySyft's own versions."""

__version__ = "0.2.0"
