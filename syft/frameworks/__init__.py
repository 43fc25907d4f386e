"""Frameworks that models may be written in; there is one, torch."""

from syft.generic.absent import names_of

__getattr__ = names_of(__name__)
