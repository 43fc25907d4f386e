"""Texts, types and travels of the errors."""

import builtins
import copy
import itertools
import pickle
import re

import pytest

from syft import exceptions
from syft.exceptions import RemoteError, SyftError, from_fields, to_fields

CLASSES = {
    name: value
    for name, value in vars(exceptions).items()
    if isinstance(value, type) and issubclass(value, SyftError)
}
URL = "ws://127.0.0.1:8778"
EXAMPLES = [
    exceptions.WorkerUnreachable("bob", URL, 10.0, 4, "ConnectionRefusedError"),
    exceptions.ConnectionLost("bob", URL, "fit(dataset_key='mnist')", "closed with code 1006"),
    exceptions.HandshakeFailed("bob", URL, "HTTP 404"),
    exceptions.VersionMismatch("bob", URL, "another version", ours=1, theirs=2),
    exceptions.CallAbandoned("bob"),
    exceptions.CallTimeout("bob", "fit(dataset_key='mnist')", 2.5),
    exceptions.AddressInUse("bob", URL, "Address already in use"),
    exceptions.TokenNotKept("bob", URL, "No space left on device"),
    exceptions.MalformedMessage("3 bytes; a header has 20"),
    exceptions.MessageTooLarge("charlie", "message from", 71303168, 67108864),
    exceptions.UnknownCommand("alice", "add_dataset", ["evaluate", "fit"]),
    exceptions.NotSerializable("a value of type builtins.set", "unknown type"),
    exceptions.NotConvertible("model 'Net'", "prim::CreateObject"),
    exceptions.InvalidReply(
        "bob", "parameter 'fc.weight'", "(2, 3) torch.float64", "(2, 3) torch.float32"
    ),
    exceptions.NotScriptable("function 'loss_fn'", "RuntimeError: not supported"),
    exceptions.WorkerNotFoundException("dave", ["alice", "me"]),
    exceptions.ObjectNotFoundError("alice", 17),
    exceptions.GetNotPermittedError("alice", 17),
    exceptions.TensorsNotCollocatedException("aten::add.Tensor", ["alice", "bob"]),
    exceptions.InvalidTensorForRemoteGet("bob", "[PointerTensor | me:1 -> bob:2]"),
    exceptions.RemoteValueNeeded("item()"),
    exceptions.RemoteOperationFailed(
        "bob", "aten::mm", "RuntimeError", "shapes cannot be multiplied", 7, "train.py:42"
    ),
    exceptions.RemoteOperationsOff("bob"),
    exceptions.OperationsLost("bob"),
    exceptions.DatasetNotFound("alice", "mnist_testing", ["mnist"]),
    exceptions.DatasetExists("alice", "mnist"),
    exceptions.DatasetEmpty("alice", "mnist"),
    exceptions.TrainConfigMissing("alice"),
    exceptions.UnknownOptimizer("SDG", ["Adam", "SGD"]),
    exceptions.DeviceUnavailable("alice", "cuda:0", ["cpu"]),
    exceptions.AccessDenied("bob", URL, "the token is wrong"),
    exceptions.OperatorNotAllowed("aten::save", "__torch__.Net.forward"),
    exceptions.LimitExceeded("alice", "the open connections", 65, 64, "connections"),
    exceptions.NotPermitted("alice", "datasets", "secret", ["mnist"]),
    exceptions.PrivacyBudgetSpent("alice", 2.5, 3.25, 3.0, 1e-5),
    exceptions.PrivacyAccountDamaged("alice.json", "it is no JSON"),
    exceptions.AuditLogUnavailable("alice", "No space left on device"),
    exceptions.EmptyRoundError(),
    exceptions.ModelMismatchError("bob", "fc.weight", "missing", "(2, 3) torch.float32"),
    exceptions.QuorumNotReached(1, 2, {"bob": "no answer", "charlie": "it has gone"}),
    exceptions.CheckpointDamaged("run.safetensors", "it cannot be read"),
    exceptions.CheckpointMismatch("run.safetensors", "argument 'seed'", "1", "2"),
    exceptions.HistoryDamaged("history.jsonl", "no json"),
    RemoteError.of(
        "ValueError",
        worker="alice",
        call="fit(dataset_key='mnist')",
        message="Expected input batch_size (32)",
        traceback="Traceback (most recent call last):\n  File ...\n",
    ),
]
BY_NAME = {type(error).__name__: error for error in EXAMPLES}

TEXTS = {
    "WorkerUnreachable": (
        "worker 'bob' did not accept a connection at ws://127.0.0.1:8778 within 10 s (4 attempts; "
        "the last one: ConnectionRefusedError). Is the server running at ws://127.0.0.1:8778? "
        "Start the workers first: python start_websocket_servers.py"
    ),
    "WorkerNotFoundException": (
        "no worker 'dave' is known in this process; it knows: 'alice', 'me'. Create its proxy "
        "first, or register it with add_worker()."
    ),
    "DatasetNotFound": (
        "worker 'alice' has no dataset 'mnist_testing' (unknown dataset); it has: 'mnist'."
    ),
    "TensorsNotCollocatedException": (
        "aten::add.Tensor needs tensors that are together; these are on 'alice', 'bob'. Call "
        ".get() to have them here, .move(worker) or .send(worker) to have them there."
    ),
    "InvalidTensorForRemoteGet": (
        "remote_get() of [PointerTensor | me:1 -> bob:2]: worker 'bob' holds the tensor itself; "
        "expected a pointer to a pointer, as .send(bob).send(alice) makes one. Call .get() to have "
        "the tensor here."
    ),
    "RemoteValueNeeded": (
        "item() needs the values of a tensor that is at a worker: call .get() first "
        "(pointer.copy().get() leaves it there)."
    ),
    "RemoteOperationFailed": (
        "operation aten::mm, posted at train.py:42, failed on worker 'bob': RuntimeError: shapes "
        "cannot be multiplied"
    ),
    "RemoteOperationsOff": (
        "worker 'bob' runs no operations on remote tensors: it has datasets, and its owner has not "
        "allowed it (remote_operations=True, --remote_operations). Train with a TrainConfig "
        "instead."
    ),
    "OperationsLost": (
        "worker 'bob' was restarted, or has forgotten this program while it was away: its remote "
        "tensors are gone. Send models and tensors again."
    ),
    "MessageTooLarge": (
        "message too large: message from 'charlie' is 71303168 bytes; the limit is 67108864 bytes. "
        "Raise max_message_bytes on the client and on the server."
    ),
    "OperatorNotAllowed": (
        "this model or function is refused: __torch__.Net.forward uses aten::save, which is not on "
        "the list of allowed operators (syft/graph/operators.py). Write it without, or have the "
        "receiver allow it (allow_operators=)."
    ),
    "QuorumNotReached": (
        "received 1 model; the round needs 2 (min_workers). Failures: bob: no answer; charlie: it "
        "has gone."
    ),
    "InvalidReply": (
        "worker 'bob' sent an invalid reply: parameter 'fc.weight': (2, 3) torch.float64; expected "
        "(2, 3) torch.float32. The whole reply is discarded."
    ),
    "CheckpointMismatch": (
        "checkpoint 'run.safetensors' belongs to another run: its argument 'seed' is 1; expected "
        "2. Resume with the model and the arguments of that run."
    ),
    "LimitExceeded": (
        "worker 'alice' refused the request: the open connections (65) would exceed the limit of "
        "64 (connections, set by the worker's owner)."
    ),
    "NotPermitted": (
        "worker 'alice' does not permit 'secret'; its owner allows these datasets: 'mnist'."
    ),
    "RemoteError": (
        "worker 'alice' failed in fit(dataset_key='mnist'): ValueError: Expected input batch_size "
        "(32)\n"
        "  --- traceback on worker 'alice' ---\n"
        "  Traceback (most recent call last):\n"
        "    File ..."
    ),
}


def tree() -> dict[str, tuple[str | None, str | None]]:
    """Return the hierarchy that the module draws: name -> parent, built-in base."""
    found, path = {}, []
    for line in exceptions.__doc__.splitlines():
        match = re.match(r"([│├└─ ]*)([A-Z]\w+)(?= |$)(?:.*\(also (\w+)\))?", line)
        if match and (found or match[2] == "SyftError") and (match[1].endswith("── ") or not found):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            found[match[2]] = (path[depth - 1] if depth else None, match[3])
    return found


def test_the_tree_in_the_docstring_is_the_real_one():
    real = {}
    for name, cls in CLASSES.items():
        own = [base.__name__ for base in cls.__bases__ if issubclass(base, SyftError)]
        others = [base.__name__ for base in cls.__bases__ if not issubclass(base, SyftError)]
        real[name] = (own[0], others[0] if others else None) if own else (None, None)
    assert tree() == real


def test_every_error_that_holds_facts_has_an_example_here():
    bases = {"SyftError", "ConnectionFailed", "ProtocolError", "CheckpointError"}
    assert BY_NAME.keys() == CLASSES.keys() - bases


def test_each_error_says_what_failed_what_was_expected_and_what_to_do():
    assert {name: str(BY_NAME[name]) for name in TEXTS} == TEXTS


def parts_of(value: object) -> list[object]:
    """Return the single facts in a field."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else [value]


def test_a_text_names_every_fact():
    for error in EXAMPLES:
        facts = to_fields(error)
        if isinstance(error, exceptions.VersionMismatch):
            del facts["cause"]  # that is the two versions
        if isinstance(error, exceptions.RemoteOperationFailed):
            del facts["site"]  # that is the line
        for part in itertools.chain(*map(parts_of, facts.values())):
            text = f"{part:g}" if isinstance(part, float) else str(part).strip()
            assert text in str(error).replace("\n  ", "\n")


def test_a_list_of_nothing_is_called_none():
    assert str(exceptions.DatasetNotFound("alice", "mnist", [])).endswith("it has: none.")


def test_the_text_of_a_key_error_is_not_quoted():
    assert str(exceptions.ObjectNotFoundError("alice", 17)).startswith(
        "worker 'alice' has no object with id 17."
    )


def test_fields_make_the_same_error_again():
    for error in EXAMPLES[:-1]:
        again = from_fields(type(error).__name__, to_fields(error))
        assert (type(again), vars(again), str(again)) == (type(error), vars(error), str(error))


@pytest.mark.parametrize(
    ("type_name", "fields"),
    [
        ("ValueError", {}),
        ("dataclass", {}),
        ("RemoteError", to_fields(BY_NAME["RemoteError"])),
        ("DatasetExists", {"worker": "alice"}),
        ("DatasetExists", {"worker": "alice", "dataset_key": "mnist", "more": 1}),
        ("TrainConfigMissing", {}),
        ("EmptyRoundError", {"models": 0}),
    ],
)
def test_no_error_is_made_of_a_foreign_name_or_of_other_fields(type_name, fields):
    assert from_fields(type_name, fields) is None


def test_an_error_survives_copies_and_pickle():
    for error in EXAMPLES:
        for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert type(again) is type(error)
            assert (to_fields(again), str(again)) == (to_fields(error), str(error))


def test_a_copy_keeps_the_remote_traceback():
    error = exceptions.DatasetExists("alice", "mnist")
    error.remote_traceback = "Traceback on alice"
    assert pickle.loads(pickle.dumps(error)).remote_traceback == "Traceback on alice"


BUILT_IN = sorted(
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, Exception)
)


def test_a_remote_error_is_of_the_built_in_type_that_was_raised():
    # A group cannot be made without its exceptions; the others end a coroutine in their own way.
    plain = {"ExceptionGroup", "StopIteration", "StopAsyncIteration"}
    for name in BUILT_IN:
        error = RemoteError.of(name, worker="alice", call="fit()", message="reason", traceback="")
        assert isinstance(error, RemoteError)
        assert name in plain or isinstance(error, getattr(builtins, name)), name
        assert f"{name}: reason" in str(error)


@pytest.mark.parametrize(
    "name",
    ["OutOfMemoryError", "SystemExit", "KeyboardInterrupt", "print", "__doc__", "RemoteError"],
)
def test_a_remote_error_of_any_other_type_is_just_a_remote_error(name):
    assert (
        type(RemoteError.of(name, worker="alice", call="fit()", message="", traceback=""))
        is RemoteError
    )


def test_facts_that_are_nested_too_deep_make_no_error():
    levels = []
    for _ in range(100_000):
        levels = [levels]
    for obj_id in (levels, {"a": levels}):
        assert from_fields("ObjectNotFoundError", {"worker": "alice", "obj_id": obj_id}) is None
