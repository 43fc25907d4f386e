"""Import paths and names, and the rules that the source of the package keeps."""

import ast
import graphlib
import importlib
import operator
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

import syft
from syft.generic import absent
from syft.generic.absent import MODEL_METHODS, NOT_HERE, TENSOR_METHODS

ROOT = Path(syft.__file__).parent
PATHS = sorted(ROOT.rglob("*.py"))

# What programs written for PySyft 0.2 import, and the names that are new.
NAMES = {
    "syft": (
        "TorchHook local_worker hook ID_PROVIDER TrainConfig BaseDataset VirtualWorker "
        "FederatedDataset FederatedDataLoader PrivateGridNetwork PointerTensor create_sandbox "
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
    "syft.worker": "serve",
    "syft.options": "Parser add_worker_options worker_options add_client_options client_options",
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
    "PointerTensor": "get async_get copy move send_ get_ id owner grad data backward",
    # Those that TorchHook adds.
    "torch": "hook",
    "torch.Tensor": "send send_ get_ copy create_pointer tag describe id owner location",
    "torch.nn.Module": "send get move copy location",
    "torch.utils.data.Dataset": "federate",
}

# From the ground up; a module belongs to the longest entry that its name begins with.
FLOORS = [
    ["syft.version", "syft.facts", "syft.files", "syft.fits", "syft.options"],
    ["syft.exceptions"],
    ["syft.objects", "syft.graph"],
    ["syft.wire"],
    ["syft.access"],
    ["syft.limits", "syft.policy", "syft.audit"],
    ["syft.commands"],
    ["syft.remote"],
    ["syft.session"],
    ["syft.dispatch", "syft.generic"],
    ["syft.frameworks", "syft.messaging", "syft.serde"],
    ["syft.federated"],
    ["syft.workers"],
    ["syft.grid"],
    ["syft.sandbox"],
    ["syft.own_dataset"],
    ["syft.worker"],
    ["syft"],
]


def test_the_names_that_programs_for_pysyft_use_can_be_imported():
    for module, names in NAMES.items():
        for name in names.split():
            operator.attrgetter(name)(importlib.import_module(module))


def test_the_methods_that_programs_for_pysyft_use_are_there():
    syft.TorchHook(torch)
    missing = [
        f"{cls}.{name}"
        for cls, names in METHODS.items()
        for name in names.split()
        if name not in dir(operator.attrgetter(cls)(syft))
    ]
    assert missing == []


def test_the_older_path_holds_the_same_modules():
    from syft.frameworks.torch.federated.utils import federated_avg

    from syft.frameworks.torch.federated import utils

    assert federated_avg is syft.frameworks.torch.fl.utils.federated_avg
    assert utils is syft.frameworks.torch.fl.utils


def test_the_module_torch_is_there_as_in_pysyft():
    assert syft.torch is torch


@pytest.mark.parametrize("name", ["serialize", "deserialize"])
def test_a_name_that_is_not_here_can_be_imported_but_not_called(name):
    stand_in = getattr(syft.serde, name)
    assert stand_in is getattr(syft.serde, name) and not isinstance(b"", stand_in)
    with pytest.raises(NotImplementedError) as refused:
        stand_in(torch.ones(1), force_full_simplification=True)
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
    assert set(syft.__all__) == imported - {"registry", "absent"} | {"hook", "local_worker"}
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
    with pytest.raises(AttributeError, match=r"^module 'syft' has no attribute 'TorchHok'$"):
        _ = syft.TorchHok


NOTICE = "of PySyft 0.2 is not in this package; see docs/differences_from_pysyft.md."


@pytest.mark.parametrize("name", NOT_HERE)
def test_a_name_of_pysyft_that_is_not_here_says_what_to_do_without(name):
    assert not hasattr(syft, name)
    with pytest.raises(AttributeError) as refused:
        getattr(syft, name)
    assert str(refused.value) == (
        f"module 'syft' has no attribute {name!r}: this name {NOTICE} {NOT_HERE[name]}"
    )
    with pytest.raises(ImportError) as refused:
        exec(f"from syft import {name}")
    assert str(refused.value) == (
        f"cannot import name {name!r} from 'syft': this name {NOTICE} {NOT_HERE[name]}"
    )


@pytest.mark.parametrize("name", absent.MODULES)
def test_a_module_of_pysyft_that_is_not_here_says_what_to_do_without(name):
    parent, _, last = name.rpartition(".")
    lines = f"import {name}", f"from {name}.inner import Thing", f"from {parent} import {last}"
    for line in lines:
        with pytest.raises(ImportError) as refused:
            exec(line)
        told = f"No module named {name!r}: this module {NOTICE} {absent.MODULES[name]}"
        assert str(refused.value) == told, line
    with pytest.raises(AttributeError) as refused:
        getattr(importlib.import_module(parent), last)
    assert str(refused.value).endswith(f"this module {NOTICE} {absent.MODULES[name]}")


# Of programs for PySyft 0.2 that are public.
@pytest.mark.parametrize(
    "line",
    [
        "from syft.workers import TFEWorker",
        "from syft.grid import VirtualGrid",
        "from syft.execution.plan import Plan",
        "from syft.execution.translation import TranslationTarget",
        "from syft.frameworks.torch.differential_privacy import pate",
        "from syft.frameworks.torch.mpc.securenn import private_compare",
        "from syft.frameworks.torch.tensors.interpreters import AbstractTensor",
        "from syft.grid.clients.model_centric_fl_client import ModelCentricFLClient",
        "from syft.generic.pointers.pointer_dataset import PointerDataset",
        "from syft.serde.compression import NO_COMPRESSION",
        "import syft as sy; sy.frameworks.torch.he.paillier.keygen()",
        "import syft as sy; sy.serde.compression.default_compress_scheme = None",
    ],
)
def test_a_line_of_an_old_program_that_cannot_run_says_where_to_look(line):
    with pytest.raises((ImportError, AttributeError), match="see docs/differences_from"):
        exec(line)


@pytest.mark.parametrize("line", ["import syft.plan", "from syft import plan", "import json.syft"])
def test_other_modules_that_are_not_there_are_pythons_own_errors(line):
    with pytest.raises(ImportError) as refused:
        exec(line)
    assert "PySyft" not in str(refused.value)


def test_the_package_is_asked_once_for_what_nothing_else_finds():
    absent.Finder.install()
    assert sum(isinstance(each, absent.Finder) for each in sys.meta_path) == 1


@pytest.mark.parametrize("name", TENSOR_METHODS)
def test_a_method_of_pysyfts_tensors_that_is_not_here_says_what_to_do_without(name):
    syft.TorchHook(torch)
    tensor = torch.ones(1)
    assert not hasattr(tensor, name)
    with pytest.raises(AttributeError) as refused:
        getattr(tensor, name)
    assert str(refused.value) == (
        f"'Tensor' object has no attribute {name!r}: this name {NOTICE} {TENSOR_METHODS[name]}"
    )


@pytest.mark.parametrize("name", MODEL_METHODS)
def test_a_method_of_pysyfts_models_that_is_not_here_says_what_to_do_without(name):
    syft.TorchHook(torch)
    with pytest.raises(AttributeError) as refused:
        getattr(torch.nn.Linear(1, 1), name)()
    assert str(refused.value).startswith(f"'Linear' object has no attribute {name!r}: this name of")


def test_a_pointer_lacks_the_methods_that_a_tensor_lacks(alice):
    syft.TorchHook(torch)
    with pytest.raises(AttributeError, match=r"'PointerTensor' object .* 'fix_precision': this"):
        torch.ones(1).send(alice).fix_precision()


def test_tensors_and_models_may_have_attributes_of_their_own_with_such_names():
    syft.TorchHook(torch)
    tensor, model = torch.ones(1), torch.nn.ModuleDict({"share": torch.nn.Linear(1, 1)})
    tensor.child = 3
    model.encrypt = torch.nn.Linear(1, 1)
    assert tensor.child == 3 and not hasattr(torch.ones(1), "child")
    assert model["share"] is model.share and isinstance(model.encrypt, torch.nn.Linear)
    # What torch itself looks through.
    assert torch.overrides.get_overridable_functions()


def rows_of(title: str) -> dict[str, str]:
    """Return a table for moving a program: name -> what it is here."""
    text = (ROOT.parent / "docs" / "differences_from_pysyft.md").read_text()
    table = re.split(r"^##", text[text.index(f"### {title}") + 3 :], flags=re.MULTILINE)[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {name: here for names, here in rows for name in re.findall(r"`([\w.]+)`", names)}


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Names of `sy`", NOT_HERE),
        ("Modules", absent.MODULES),
        ("Attributes of tensors", TENSOR_METHODS),
    ],
)
def test_the_table_for_moving_a_program_lists_the_names_that_are_not_here(title, names):
    rows = rows_of(title)
    assert {name for name, here in rows.items() if here.startswith("not here: ")} == names.keys()


def test_the_table_for_moving_a_program_lists_the_names_that_are_here():
    new = {"FederatedClient", "ObjectPointer", "ObjectWrapper"}
    here = {name for name, here in rows_of("Names of `sy`").items() if here.startswith("the same")}
    assert here == set(syft.__all__) - new
    for name, text in rows_of("Modules").items():
        if not text.startswith("not here: "):
            importlib.import_module(name)
    pointer = dir(syft.PointerTensor)
    attributes = rows_of("Attributes of tensors").items()
    assert [name for name, text in attributes if "same" in text[:8] and name not in pointer] == []


def test_the_version_is_a_release():
    assert re.fullmatch(r"\d+\.\d+\.\d+", syft.__version__)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PATHS}


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


def test_the_walk_through_the_package_sees_its_imports():
    assert {"syft.wire", "asyncio", "syft.dispatch"} <= imports_of("syft.workers.virtual")
    names = [
        "syft.exceptions",
        "syft.dispatch",
        "syft.federated.train_config",
        "syft.workers.base",
        "syft",
    ]
    assert sorted(names, key=floor_of) == names


def test_each_floor_imports_only_from_floors_below():
    for name in MODULES:
        for imported in imports_of(name) & MODULES.keys():
            below = floor_of(imported) < floor_of(name)
            assert below or entry_of(imported) == entry_of(name), f"{name} imports {imported}"


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: imports_of(name) & MODULES.keys() - {name} for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


def packages_of(name: str) -> set[str]:
    """Return the names of the packages that a module imports."""
    return {imported.partition(".")[0] for imported in imports_of(name)}


def test_only_the_websocket_workers_know_websockets():
    know = [name for name in MODULES if "websockets" in packages_of(name)]
    assert know and all(name.startswith("syft.workers.websocket_") for name in know)


TRANSPORT = {"websockets", "socket", "socketserver", "ssl", "selectors", "http", "urllib"}


def test_below_the_workers_nothing_knows_transport():
    for name in MODULES:
        if floor_of(name) < floor_of("syft.workers"):
            assert not packages_of(name) & TRANSPORT, name
        if floor_of(name) < floor_of("syft.federated"):
            assert "asyncio" not in packages_of(name), name


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


def test_nothing_in_the_package_unpickles_or_evaluates():
    for name, path in MODULES.items():
        nodes = ast.walk(tree_of(path))
        calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        assert not calls & UNSAFE_CALLS and not packages_of(name) & UNSAFE_MODULES, name


def test_every_module_says_what_it_is_for():
    assert [name for name, path in MODULES.items() if not ast.get_docstring(tree_of(path))] == []
