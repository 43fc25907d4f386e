"""What holds in a new process, in several at once, and when one is killed."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import syft as sy
from syft.audit import AuditLog
from syft.federated.checkpoint import Checkpoint
from syft.generic.absent import MODEL_METHODS, TENSOR_METHODS
from tests.models import blobs, classifier, make_config
from tests.network import Server, proxy_of, serving
from tests.processes import CONTEXT

REPOSITORY = Path(__file__).parents[2]

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
    pairs = [(each.__name__, vars(each).keys() - old.keys()) for each, old in zip(spaces, before)]
    return sorted(f"{space}.{name}" for space, names in pairs for name in names)
import syft
facts = {"import changes": differing()}
facts |= {"import adds natives": [n for n in added() if ".native_" in n]}
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
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_import_patches_nothing_and_starts_nothing(new_process):
    assert new_process["import changes"] == new_process["import adds natives"] == []
    assert new_process["threads"] == 1
    assert (new_process["hook"], new_process["local worker"]) == (None, "me")
    assert new_process["handlers"] == ["NullHandler"]


def test_the_hook_adds_names_and_changes_none(new_process):
    assert new_process["hook changes"] == new_process["second hook adds"] == []
    # Those of PySyft 0.2 that are not here are errors that say so.
    absent = {f"Tensor.{name}" for name in TENSOR_METHODS}
    absent |= {f"Module.{name}" for name in MODEL_METHODS}
    assert absent <= set(new_process["hook adds"])
    added = [name for name in new_process["hook adds"] if name not in absent]
    others = [name for name in added if ".native_" not in name]
    assert others == [
        "Dataset.federate",
        *(f"Module.{name}" for name in ("copy", "get", "location", "move", "send")),
        *(
            f"Tensor.{name}"
            for name in ("combine", "copy", "create_pointer", "describe", "get_", "id")
        ),
        *(f"Tensor.{name}" for name in ("location", "owner", "send", "send_", "tag")),
        "torch.hook",
    ]
    assert "torch.native_masked_select" in new_process["hook adds"]


def trained_digest(pipe: Any) -> None:
    """Train on two workers, one of them behind a socket, and send a digest of all that came of
    it."""
    torch.set_num_threads(1)
    digest = hashlib.sha256()
    torch.manual_seed(3)
    model = classifier(dropout=0.5)
    near = sy.VirtualWorker(id="near", auto_add=False)
    near.add_dataset(blobs(), key="blobs")
    with serving(Server()) as server, proxy_of(server) as far:
        for worker in (near, far):
            config = make_config(model, seed=None, epochs=2).send(worker)
            for _ in range(3):
                digest.update(str(worker.call("fit", dataset_key="blobs").item()).encode())
            for tensor in config.get_model().obj.state_dict().values():
                digest.update(tensor.numpy().tobytes())
    pipe.send(digest.hexdigest())


def test_a_seeded_run_is_the_same_to_the_bit_in_another_process():
    digests = []
    for _ in range(2):
        ours, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=trained_digest, args=(theirs,))
        process.start()
        theirs.close()
        digests.append(ours.recv())
        process.join()
    assert digests[0] == digests[1]


KILLED_WHILE_IT_WRITES = """
import os, sys, signal
from syft.federated import checkpoint
from syft.federated.checkpoint import write_whole
content = b"new" * 1_000_000
checkpoint.os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
write_whole(sys.argv[1], content)
"""


def test_a_process_killed_while_it_writes_leaves_the_earlier_checkpoint(tmp_path):
    path = tmp_path / "checkpoint"
    Checkpoint.of(classifier(), 7, 0.1, {}).save(path)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_IT_WRITES, str(path)], cwd=REPOSITORY, timeout=120
    )
    assert ended.returncode == -9
    assert Checkpoint.load(path).round == 7


def write_many(path, name):
    log = AuditLog(path)
    for _ in range(500):
        log.write(worker=name, call="x" * 200)


def test_several_processes_share_an_audit_log(tmp_path):
    processes = [
        CONTEXT.Process(target=write_many, args=(tmp_path / "audit", name))
        for name in ("alice", "bob")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    written = [json.loads(line)["worker"] for line in (tmp_path / "audit").read_text().splitlines()]
    assert sorted(written) == ["alice"] * 500 + ["bob"] * 500
