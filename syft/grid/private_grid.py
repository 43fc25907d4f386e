"""A search for tensors on several workers."""

from __future__ import annotations

from syft.objects import ObjectId, ObjectPointer
from syft.workers.base import BaseWorker


class PrivateGridNetwork:
    """Workers that are searched together.

    Source: PySyft 0.2.4, `syft.grid.private_grid.PrivateGridNetwork`. Models cannot be hosted on it
    (`serve_model`), which PySyft did on PyGrid's nodes only.

    Args:
        *workers: the workers.
    """

    def __init__(self, *workers: BaseWorker) -> None:
        self.workers = list(workers)

    def search(self, *query: ObjectId) -> dict[ObjectId, list[ObjectPointer]]:
        """Return what carries all these tags, or has this id: worker id -> pointers.

        Workers without any are left out. Without tags, pointers to all objects with tags are
        returned. The objects stay when the pointers go.

        Raises:
            ConnectionFailed: a worker is not reached.
        """
        found = {worker.id: worker.search(list(query)) for worker in self.workers}
        return {worker_id: pointers for worker_id, pointers in found.items() if pointers}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(str(worker.id) for worker in self.workers)}>"
