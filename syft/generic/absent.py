"""Names of PySyft 0.2 that programs import and that are not here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

NO_ENCRYPTION = "Nothing is computed on encrypted values here."
NO_PLANS = "Send a traced or scripted model with a TrainConfig."
NO_TENSORFLOW = "Workers train models of torch only."
NO_WRAPPER = "Tensors have no layers of wrappers here."

NOT_HERE = {
    "AdditiveSharingTensor": NO_ENCRYPTION,
    "AutogradTensor": NO_WRAPPER,
    "CRTPrecisionTensor": NO_ENCRYPTION,
    "FixedPrecisionTensor": NO_ENCRYPTION,
    "KerasHook": NO_TENSORFLOW,
    "LargePrecisionTensor": NO_ENCRYPTION,
    "LoggingTensor": NO_WRAPPER,
    "NumpyTensor": "Use torch.from_numpy, or give arrays to BaseDataset.",
    "PaillierTensor": NO_ENCRYPTION,
    "PlaceHolder": NO_PLANS,
    "Plan": NO_PLANS,
    "PointerPlan": NO_PLANS,
    "PrivateTensor": NO_WRAPPER,
    "PromiseTensor": "Calls that do not wait are coroutines: await worker.async_fit(...).",
    "Protocol": NO_PLANS,
    "PublicGridNetwork": "Name the workers' addresses: WebsocketClientWorker(hook, host, port).",
    "String": "Send text as an argument of worker.call(...).",
    "TFECluster": NO_TENSORFLOW,
    "TFEWorker": NO_TENSORFLOW,
    "fix_precision": NO_ENCRYPTION,
    "func2plan": NO_PLANS,
    "func2protocol": NO_PLANS,
    "keygen": NO_ENCRYPTION,
    "make_hook": "Write sy.TorchHook(torch).",
    "make_plan": NO_PLANS,
    "method2plan": NO_PLANS,
    "pool": "Use multiprocessing.Pool().",
    "share": NO_ENCRYPTION,
}
"""Names that PySyft 0.2's `syft` had -> what to do without."""


def not_here(name: str) -> AttributeError:
    """Return the error for a name that the package `syft` does not have."""
    text = f"module 'syft' has no attribute {name!r}"
    if name in NOT_HERE:
        text += (
            ": this name of PySyft 0.2 is not in this package; see "
            f"docs/differences_from_pysyft.md. {NOT_HERE[name]}"
        )
    return AttributeError(text, name=name)


def absent(module: str, names: str, instead: str) -> Callable[[str], type]:
    """Return the `__getattr__` of a module whose names can be imported, but not called.

    Args:
        module: the module's name.
        names: the names that PySyft 0.2 had there, separated by spaces.
        instead: for the error of a call: why it is not here and what to do, in whole sentences.
    """

    @cache
    def get(name: str) -> type:
        if name not in names.split():
            raise AttributeError(f"module {module!r} has no attribute {name!r}")

        def refuse(cls: type, *args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(
                f"{module}.{name} cannot be used: only its name is here. {instead}"
            )

        return type(name, (), {"__module__": module, "__new__": refuse})

    return get
