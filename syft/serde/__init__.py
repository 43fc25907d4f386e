"""Import path of PySyft 0.2; only names are here.

How this package makes bytes of objects is in `syft.wire`.
"""

from syft.generic.absent import absent

__getattr__ = absent(
    __name__,
    "serialize deserialize",
    "Objects become bytes when they are sent: train_config.send(worker), tensor.send(worker), "
    "worker.call(...). For files there is torch.save.",
)
