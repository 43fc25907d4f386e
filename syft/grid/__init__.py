"""Several workers, searched at once."""

from syft.grid.private_grid import PrivateGridNetwork

__all__ = ["PrivateGridNetwork"]
