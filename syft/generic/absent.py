"""Names of PySyft 0.2 that programs use and that are not here, with what to do instead.

    sy.Plan                                    AttributeError
    from syft import Plan                      ImportError
    import syft.frameworks.torch.mpc.securenn  ModuleNotFoundError, which is an ImportError
    x.fix_precision()                          AttributeError, after TorchHook

Each says that the name is PySyft's, where the table for moving a program is, and what to do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

NO_SERDE = "Objects become bytes when they are sent; for files there is torch.save."
NO_ENCRYPTION = "Nothing is computed on encrypted values here."
NO_GRID = "Name the workers' addresses: WebsocketClientWorker(hook, host, port)."
NO_OTHER_FRAMEWORK = "Workers train models of torch only."
NO_PATE = "Owners of data bound what trainings tell with a privacy budget, see docs/privacy.md."
NO_PLANS = "Send a traced or scripted model with a TrainConfig."
NO_PROMISES = "Calls that do not wait are coroutines: await worker.async_fit(...)."
NO_TEXT = "Send text as an argument of worker.call(...)."
NO_WRAPPER = "Tensors have no layers of wrappers here."
INNER = "It was an inner part of PySyft."

NOT_HERE = {
    "AdditiveSharingTensor": NO_ENCRYPTION,
    "AutogradTensor": NO_WRAPPER,
    "CRTPrecisionTensor": NO_ENCRYPTION,
    "FixedPrecisionTensor": NO_ENCRYPTION,
    "KerasHook": NO_OTHER_FRAMEWORK,
    "LargePrecisionTensor": NO_ENCRYPTION,
    "LoggingTensor": NO_WRAPPER,
    "Message": "Ask a worker with its methods: call(), search(), send().",
    "NumpyTensor": "Use torch.from_numpy, or give arrays to BaseDataset.",
    "PaillierTensor": NO_ENCRYPTION,
    "PlaceHolder": NO_PLANS,
    "Plan": NO_PLANS,
    "PointerPlan": NO_PLANS,
    "PointerProtocol": NO_PLANS,
    "PrivateTensor": NO_WRAPPER,
    "PromiseTensor": NO_PROMISES,
    "Protocol": NO_PLANS,
    "PublicGridNetwork": NO_GRID,
    "ReplicatedSharingTensor": NO_ENCRYPTION,
    "String": NO_TEXT,
    "TFECluster": NO_OTHER_FRAMEWORK,
    "TFEWorker": NO_OTHER_FRAMEWORK,
    "VirtualGrid": "Write sy.PrivateGridNetwork(*workers).",
    "fix_precision": NO_ENCRYPTION,
    "framework": "Write torch.",
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

MODULES = {
    "syft.codes": INNER,
    "syft.common": INNER,
    "syft.dependency_check": INNER,
    "syft.execution": NO_PLANS,
    "syft.frameworks.crypten": NO_ENCRYPTION,
    "syft.frameworks.keras": NO_OTHER_FRAMEWORK,
    "syft.frameworks.numpy": NO_OTHER_FRAMEWORK,
    "syft.frameworks.tenseal": NO_ENCRYPTION,
    "syft.frameworks.tensorflow": NO_OTHER_FRAMEWORK,
    "syft.frameworks.torch.crypto": NO_ENCRYPTION,
    "syft.frameworks.torch.differential_privacy": NO_PATE,
    "syft.frameworks.torch.dp": NO_PATE,
    "syft.frameworks.torch.functions": "Write sy.combine_pointers(...).",
    "syft.frameworks.torch.he": NO_ENCRYPTION,
    "syft.frameworks.torch.hook.hook_args": INNER,
    "syft.frameworks.torch.linalg": NO_ENCRYPTION,
    "syft.frameworks.torch.mpc": NO_ENCRYPTION,
    "syft.frameworks.torch.nn": "Layers of torch.nn travel as they are.",
    "syft.frameworks.torch.tensors": NO_WRAPPER,
    "syft.generic.abstract": INNER,
    "syft.generic.frameworks": INNER,
    "syft.generic.id_provider": "Write sy.ID_PROVIDER.",
    "syft.generic.metrics": INNER,
    "syft.generic.object": INNER,
    "syft.generic.pointers.callable_pointer": NO_PLANS,
    "syft.generic.pointers.pointer_dataset": "BaseDataset.send(worker) returns the dataset.",
    "syft.generic.pointers.pointer_plan": NO_PLANS,
    "syft.generic.pointers.pointer_protocol": NO_PLANS,
    "syft.generic.pointers.string_pointer": NO_TEXT,
    "syft.generic.string": NO_TEXT,
    "syft.generic.tensor": INNER,
    "syft.generic.utils": INNER,
    "syft.grid.abstract_grid": NO_GRID,
    "syft.grid.authentication": NO_GRID,
    "syft.grid.autoscale": NO_GRID,
    "syft.grid.clients": NO_GRID,
    "syft.grid.exceptions": NO_GRID,
    "syft.grid.grid_client": NO_GRID,
    "syft.grid.network": NO_GRID,
    "syft.grid.public_grid": NO_GRID,
    "syft.messaging.plan": NO_PLANS,
    "syft.messaging.promise": NO_PROMISES,
    "syft.messaging.protocol": NO_PLANS,
    "syft.serde.compression": "Nothing is compressed: parameters hardly shrink.",
    "syft.serde.msgpack": NO_SERDE,
    "syft.serde.protobuf": NO_SERDE,
    "syft.serde.serde": NO_SERDE,
    "syft.serde.syft_serializable": NO_SERDE,
    "syft.workers.message_handler": INNER,
    "syft.workers.model_centric_fl_worker": NO_GRID,
    "syft.workers.plan": NO_PLANS,
    "syft.workers.socketio_client": "Use WebsocketClientWorker.",
    "syft.workers.socketio_server": "Use WebsocketServerWorker.",
    "syft.workers.static_fl_worker": NO_GRID,
    "syft.workers.tfe": NO_OTHER_FRAMEWORK,
}
"""Modules that PySyft 0.2 had, each with all that is below it -> what to do without."""

TENSOR_METHODS = {
    "allow": "Owners of data decide with a Policy.",
    "attr": "Write x.grad, x.shape and so on.",
    "child": NO_WRAPPER,
    "decrypt": NO_ENCRYPTION,
    "encrypt": NO_ENCRYPTION,
    "fix_prec": NO_ENCRYPTION,
    "fix_prec_": NO_ENCRYPTION,
    "fix_precision": NO_ENCRYPTION,
    "fix_precision_": NO_ENCRYPTION,
    "float_prec": NO_ENCRYPTION,
    "float_prec_": NO_ENCRYPTION,
    "float_precision": NO_ENCRYPTION,
    "float_precision_": NO_ENCRYPTION,
    "is_wrapper": NO_WRAPPER,
    "mid_get": "Write x.get().",
    "move_": "Write x = x.move(worker).",
    "numpy_tensor": "Write x.numpy().",
    "private_tensor": "Owners of data decide with a Policy.",
    "remote_get": "Write x.get().",
    "remote_send": "Write x.move(worker).",
    "share": NO_ENCRYPTION,
    "share_": NO_ENCRYPTION,
    "wrap": NO_WRAPPER,
}
"""Attributes of tensors that PySyft 0.2's hook added -> what to do without."""

MODEL_METHODS = tuple(name for name in TENSOR_METHODS if name.startswith(("fix_", "float_")))
"""Those of models that programs call first, and that no layer of a model is called."""


def not_here(module: str, name: str) -> AttributeError:
    """Return the error for a name that a module of this package does not have."""
    text = f"module {module!r} has no attribute {name!r}"
    if instead := _instead_of(f"{module}.{name}"):
        text += f": {instead}"
    return AttributeError(text, name=name)


def names_of(module: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module that knows the names of PySyft 0.2 that it lacks."""

    def get(name: str) -> NoReturn:
        raise not_here(module, name)

    return get


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
            raise not_here(module, name)

        def refuse(cls: type, *args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(
                f"{module}.{name} cannot be used: only its name is here. {instead}"
            )

        return type(name, (), {"__module__": module, "__new__": refuse})

    return get


class Finder(MetaPathFinder):
    """Python asks it last for a module, or for a name that a package of `syft` does not have."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise the error for what PySyft 0.2 had under this name; return None for all else."""
        parent, _, name = fullname.rpartition(".")
        if not (instead := _instead_of(fullname)):
            return None
        if fullname in MODULES:
            # Without `name=`: Python would take "from syft import execution" for a missing name,
            # and forget this text.
            raise ModuleNotFoundError(f"No module named {fullname!r}: {instead}")
        raise ImportError(f"cannot import name {name!r} from {parent!r}: {instead}", name=parent)

    @classmethod
    def install(cls) -> None:
        """Have Python ask it, once in a process."""
        if not any(isinstance(each, cls) for each in sys.meta_path):
            sys.meta_path.append(cls())


class AbsentAttribute:
    """Stands on a class of torch for an attribute that PySyft 0.2 added and that is not here.

    `hasattr` of an instance is False, and an instance may have its own of this name.

    Args:
        name: the attribute.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Return what was assigned to the instance, or raise AttributeError; of the class, this."""
        if instance is None:
            return self
        if self._name in vars(instance):
            return vars(instance)[self._name]
        raise AttributeError(_of_object(instance, self._name), name=self._name, obj=instance)

    # torch.overrides takes for granted that what has __get__ has this too.
    def __set__(self, instance: Any, value: Any) -> None:
        """Give the instance an attribute of its own."""
        vars(instance)[self._name] = value


def absent_method(name: str) -> Callable[..., NoReturn]:
    """Return a method that raises AttributeError when it is called.

    For classes with a `__getattr__` of their own, which would replace AbsentAttribute's text.
    """

    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise AttributeError(_of_object(self, name), name=name, obj=self)

    return refuse


def _of_object(instance: Any, name: str) -> str:
    return (
        f"{type(instance).__name__!r} object has no attribute {name!r}: "
        f"{_not_in_this_package('name', TENSOR_METHODS[name])}"
    )


def _instead_of(path: str) -> str:
    """Return what to say of a module of PySyft 0.2, or of a name in one; empty: it had none."""
    parent, _, name = path.rpartition(".")
    if path in MODULES:
        return _not_in_this_package("module", MODULES[path])
    if name in NOT_HERE and (parent == "syft" or parent.startswith("syft.")):
        return _not_in_this_package("name", NOT_HERE[name])
    return ""


def _not_in_this_package(kind: str, instead: str) -> str:
    return (
        f"this {kind} of PySyft 0.2 is not in this package; see docs/differences_from_pysyft.md. "
        f"{instead}"
    )
