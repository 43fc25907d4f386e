"""Import paths and names, and the rules that the source of the package keeps."""

import ast
import graphlib
import importlib
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

import syft

ROOT = Path(syft.__file__).parent
PATHS = sorted(ROOT.rglob("*.py"))

# What programs written for PySyft 0.2 import, and the names that are new.
NAMES = {
    "syft": (
        "TorchHook local_worker hook ID_PROVIDER TrainConfig BaseDataset VirtualWorker "
        "FederatedDataset FederatedDataLoader PrivateGridNetwork create_sandbox "
        "WebsocketClientWorker WebsocketServerWorker "
        "workers.websocket_client.WebsocketClientWorker frameworks.torch.fl.utils.federated_avg "
        "federated.FederatedClient exceptions.RemoteError torch serde.serialize __version__"
    ),
    "syft.workers": "WebsocketClientWorker WebsocketServerWorker VirtualWorker",
    "syft.workers.abstract": "AbstractWorker",
    "syft.workers.base": "BaseWorker",
    "syft.workers.virtual": "VirtualWorker",
    "syft.workers.websocket_client": "WebsocketClientWorker",
    "syft.workers.websocket_server": "WebsocketServerWorker",
    "syft.federated": "FederatedClient TrainConfig",
    "syft.federated.train_config": "TrainConfig",
    "syft.federated.federated_client": "FederatedClient",
    "syft.frameworks.torch": "TorchHook fl federated",
    "syft.federated.floptimizer": "Optims",
    "syft.frameworks.torch.fl": "BaseDataset FederatedDataset FederatedDataLoader utils",
    "syft.frameworks.torch.fl.dataloader": "FederatedDataLoader",
    "syft.frameworks.torch.fl.dataset": "BaseDataset FederatedDataset dataset_federate",
    "syft.frameworks.torch.fl.utils": (
        "federated_avg add_model scale_model accuracy create_gaussian_mixture_toy_data "
        "iris_data_partial extract_batches_per_worker"
    ),
    "syft.frameworks.torch.federated": "BaseDataset FederatedDataset FederatedDataLoader utils",
    "syft.frameworks.torch.federated.dataloader": "FederatedDataLoader",
    "syft.frameworks.torch.federated.dataset": "BaseDataset",
    "syft.frameworks.torch.federated.utils": "federated_avg",
    "syft.grid": "PrivateGridNetwork",
    "syft.grid.private_grid": "PrivateGridNetwork",
    "syft.sandbox": "create_sandbox",
    "syft.generic.object_storage": "ObjectStorage",
    "syft.generic.pointers": "ObjectPointer ObjectWrapper PointerTensor",
    "syft.generic.pointers.object_pointer": "ObjectPointer",
    "syft.generic.pointers.object_wrapper": "ObjectWrapper",
    "syft.generic.pointers.pointer_tensor": "PointerTensor",
    "syft.messaging.message": "Message ObjectMessage ObjectRequestMessage SearchMessage",
    "syft.serde": "serialize deserialize",
    "syft.exceptions": "SyftError WorkerNotFoundException",
    "syft.limits": "Limits",
    "syft.policy": "Policy",
    "syft.audit": "AuditLog",
}
METHODS = {
    "WebsocketClientWorker": (
        "connect close url ws async_fit fit evaluate list_objects_remote objects_count_remote "
        "clear_objects_remote search call async_call _send_msg_and_deserialize"
    ),
    "WebsocketServerWorker": "add_dataset remove_dataset load_data start stop fit evaluate",
    "VirtualWorker": "add_dataset remove_dataset load_data async_fit fit evaluate search send",
    "FederatedClient": (
        "add_dataset remove_dataset set_obj get_obj fit evaluate _check_train_config "
        "_build_optimizer _create_data_loader"
    ),
    "TrainConfig": "send get_model get_loss_fn",
    "BaseDataset": "send get federate location tag describe get_data get_targets",
}

# From the ground up; a module belongs to the longest entry that its name begins with.
FLOORS = [
    ["syft.version", "syft.exceptions", "syft.fits"],
    ["syft.objects", "syft.graph"],
    ["syft.wire"],
    ["syft.access"],
    ["syft.limits", "syft.policy", "syft.audit"],
    ["syft.commands"],
    ["syft.session"],
    ["syft.dispatch", "syft.generic"],
    ["syft.frameworks", "syft.messaging", "syft.serde"],
    ["syft.federated"],
    ["syft.workers"],
    ["syft.grid"],
    ["syft.sandbox"],
    ["syft"],
]


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in NAMES for name in NAMES[module].split()]
)
def test_names_can_be_imported(module, name):
    value = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)


@pytest.mark.parametrize(
    ("cls", "name"), [(cls, name) for cls in METHODS for name in METHODS[cls].split()]
)
def test_methods_are_there(cls, name):
    assert hasattr(getattr(syft, cls), name)


def test_the_older_path_holds_the_same_modules():
    from syft.frameworks.torch.federated.utils import federated_avg

    from syft.frameworks.torch.federated import utils

    assert federated_avg is syft.frameworks.torch.fl.utils.federated_avg
    assert utils is syft.frameworks.torch.fl.utils


def test_the_module_torch_is_there_as_in_pysyft():
    assert syft.torch is torch


def test_the_package_tells_type_checkers_that_it_has_types():
    assert (ROOT / "py.typed").is_file()
    assert 'syft = ["py.typed"]' in (ROOT.parent / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", ["serialize", "deserialize"])
def test_a_name_that_is_not_here_can_be_imported_but_not_called(name):
    absent = getattr(syft.serde, name)
    assert absent is getattr(syft.serde, name) and not isinstance(b"", absent)
    with pytest.raises(NotImplementedError) as refused:
        absent(torch.ones(1), force_full_simplification=True)
    assert str(refused.value).startswith(
        f"syft.serde.{name} cannot be used: only its name is here. Objects become"
    )


def test_a_name_that_pysyft_did_not_have_is_not_there_either():
    with pytest.raises(AttributeError, match=r"module 'syft\.serde' has no attribute 'decode'"):
        _ = syft.serde.decode


def test_all_is_what_the_package_imports_for_its_users():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    own = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "syft"
    ]
    imported = {alias.asname or alias.name for node in own for alias in node.names}
    assert set(syft.__all__) == imported - {"registry"} | {"hook", "local_worker"}
    assert len(set(syft.__all__)) == len(syft.__all__)
    # Constants, classes, then the rest, each in alphabetical order: what ruff calls sorted.
    assert syft.__all__ == sorted(
        syft.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )


def test_import_star_brings_exactly_those():
    namespace: dict[str, object] = {}
    exec("from syft import *", namespace)
    assert namespace.keys() - {"__builtins__"} == set(syft.__all__)


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'syft' has no attribute 'Plan'"):
        _ = syft.Plan


def test_the_version_is_a_release():
    assert re.fullmatch(r"\d+\.\d+\.\d+", syft.__version__)


IN_A_NEW_PROCESS = """
import json, logging, threading, torch, warnings
warnings.simplefilter("error")
spaces = [torch, torch.nn, torch.nn.functional, torch.Tensor, torch.nn.Module]
spaces += [torch.optim, torch.jit, torch.autograd, torch.utils.data.Dataset]
before = [dict(vars(space)) for space in spaces]
def differing():
    pairs = list(zip(map(vars, spaces), before))
    return [name for now, old in pairs for name in old if now.get(name) is not old[name]]
def added():
    pairs = zip(map(vars, spaces), before)
    return sorted({name for now, old in pairs for name in now.keys() - old.keys()})
import syft
facts = {"import changes": differing()}
facts |= {"import adds natives": [n for n in added() if n.startswith("native_")]}
facts |= {"hook": syft.hook, "local worker": syft.local_worker.id}
facts |= {"threads": threading.active_count()}
facts |= {"handlers": [type(handler).__name__ for handler in logging.getLogger("syft").handlers]}
imported = set(added())
syft.TorchHook(torch)
facts |= {"hook adds": sorted(set(added()) - imported)}
syft.TorchHook(torch, is_client=False, verbose=True, seed=1)
facts |= {"hook changes": differing()}
facts |= {"second hook adds": sorted(set(added()) - imported - set(facts["hook adds"]))}
alice = syft.VirtualWorker(id="alice")
# Shows no warning of TorchScript's.
syft.TrainConfig(torch.nn.Linear(2, 1), torch.nn.MSELoss()).send(alice)
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def new_process() -> dict[str, object]:
    """What a program sees that imports the package, hooks torch and sends a model; warnings are
    errors there."""
    command = [sys.executable, "-c", IN_A_NEW_PROCESS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_import_patches_nothing_and_starts_nothing(new_process):
    assert new_process["import changes"] == new_process["import adds natives"] == []
    assert new_process["threads"] == 1
    assert (new_process["hook"], new_process["local worker"]) == (None, "me")
    assert new_process["handlers"] == ["NullHandler"]


def test_the_hook_adds_names_and_changes_none(new_process):
    assert new_process["hook changes"] == new_process["second hook adds"] == []
    others = [name for name in new_process["hook adds"] if not name.startswith("native_")]
    assert others == ["describe", "federate", "send", "tag"]
    assert "native_masked_select" in new_process["hook adds"]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PATHS}
modules = pytest.mark.parametrize("name", MODULES)


def imports_of(name: str) -> set[str]:
    """Return the modules that a module imports, anywhere in its code, for type checkers too."""
    found = set()
    for node in ast.walk(tree_of(MODULES[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (below & MODULES.keys()) or {node.module}
    return found


def entry_of(name: str) -> str:
    return max(
        (entry for floor in FLOORS for entry in floor if f"{name}.".startswith(f"{entry}.")),
        key=len,
    )


def floor_of(name: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if entry_of(name) in floor)


def test_the_walk_sees_imports():
    assert {"syft.wire", "asyncio", "syft.dispatch"} <= imports_of("syft.workers.virtual")
    names = [
        "syft.exceptions",
        "syft.dispatch",
        "syft.federated.train_config",
        "syft.workers.base",
        "syft",
    ]
    assert sorted(names, key=floor_of) == names


@modules
def test_each_floor_imports_only_from_floors_below(name):
    for imported in imports_of(name) & MODULES.keys():
        below = floor_of(imported) < floor_of(name)
        assert below or entry_of(imported) == entry_of(name), f"{name} imports {imported}"


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: imports_of(name) & MODULES.keys() - {name} for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


@modules
def test_only_the_websocket_workers_know_websockets(name):
    knows = any(imported.partition(".")[0] == "websockets" for imported in imports_of(name))
    assert not knows or name.startswith("syft.workers.websocket_")


@pytest.mark.parametrize(
    "name", [name for name in MODULES if floor_of(name) < floor_of("syft.workers")]
)
def test_below_the_workers_nothing_knows_transport(name):
    imported = {each.partition(".")[0] for each in imports_of(name)}
    assert (
        imported & {"websockets", "socket", "socketserver", "ssl", "selectors", "http", "urllib"}
        == set()
    )
    assert "asyncio" not in imported or floor_of(name) >= floor_of("syft.federated")


def test_nothing_in_the_package_imports_the_scripts():
    scripts = {path.stem for path in ROOT.parent.glob("*.py")}
    assert all(scripts.isdisjoint(imports_of(name)) for name in MODULES)


UNSAFE_MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "runpy",
    "code",
}
UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.save", "np.load", "numpy.load",
    "importlib.import_module", "builtins.eval", "builtins.exec", "os.system", "os.popen",
}  # fmt: skip


@modules
def test_no_pickle_and_no_eval(name):
    assert {each.partition(".")[0] for each in imports_of(name)} & UNSAFE_MODULES == set()
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(tree_of(MODULES[name]))
        if isinstance(node, ast.Call)
    }
    assert calls & UNSAFE_CALLS == set()


@modules
def test_every_module_says_what_it_is_for(name):
    assert ast.get_docstring(tree_of(MODULES[name]))
