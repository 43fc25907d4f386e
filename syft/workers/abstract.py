"""Import path of PySyft 0.2; the code is in `syft.workers.base`."""

from syft.workers.base import BaseWorker as AbstractWorker

__all__ = ["AbstractWorker"]
