"""Several workers, searched at once."""

from syft.generic.absent import names_of
from syft.grid.private_grid import PrivateGridNetwork

__all__ = ["PrivateGridNetwork"]
__getattr__ = names_of(__name__)
