"""Requests to a worker without a socket: what may be asked, by whom, and what comes back."""

import logging
import threading

import pytest
import torch

import syft as sy
from syft import wire
from syft.dispatch import Dispatcher
from syft.exceptions import (
    CallAbandoned,
    GetNotPermittedError,
    MalformedMessage,
    MessageTooLarge,
    NotSerializable,
    ObjectNotFoundError,
    RemoteError,
    TrainConfigMissing,
    UnknownCommand,
)
from syft.session import Session, running_call
from syft.wire.failures import unwrap
from tests.models import blobs, classifier, nll

DEFAULT = ["clear_objects", "evaluate", "fit", "list_objects", "objects_count", "privacy_spent"]
LIMIT = 100_000


class Mixin:
    def from_mixin(self):
        return "mixin"


def helper():
    return "helper"


class Own(Mixin, sy.WebsocketServerWorker):
    """A server worker of a user, with methods, and with more that is not to be called from afar."""

    constant = helper()
    instance = Mixin()
    Inner = Mixin

    def own(self, value=1):
        return value

    @staticmethod
    def static():
        return "static"

    @classmethod
    def of_class(cls):
        return cls.__name__

    @property
    def secret(self):
        return "secret"

    def fit(self, dataset_key, **kwargs):
        return f"own fit of {dataset_key}"

    def raise_error(self, what):
        raise {"surrogate": ValueError("\udcff"), "wordless": Wordless(), "plain": KeyError("k")}[
            what
        ]

    def return_set(self):
        return {1}

    def return_large(self):
        return bytes(LIMIT)

    def _private(self):
        return "private"

    def __call__(self):
        return "called"

    def add_dataset(self, dataset, key):
        super().add_dataset(dataset, key)

    def remove_dataset(self, key): ...

    def load_data(self, data): ...

    def register_obj(self, obj, obj_id=None): ...

    def set_obj(self, obj):
        super().set_obj(obj)

    def get_obj(self, obj_id):
        return super().get_obj(obj_id)

    def start(self, block=True): ...

    def stop(self): ...

    def call(self, *args, **kwargs): ...


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.fixture
def worker() -> sy.VirtualWorker:
    worker = sy.VirtualWorker(id="alice")
    worker.add_dataset(blobs(), "blobs")
    return worker


@pytest.fixture
def own() -> Own:
    return Own(None, "localhost", 0, id="own", max_message_bytes=LIMIT)


class Coordinator:
    """One coordinator of a worker, as the server sees it."""

    def __init__(self, dispatcher: Dispatcher, name: str) -> None:
        self.dispatcher = dispatcher
        self.session = dispatcher.open_session(name)

    def reply(self, command, **arguments):
        """Return the message that comes back."""
        return wire.decode(
            self.dispatcher.handle(wire.encode(wire.Request(9, command, arguments)), self.session)
        )

    def ask(self, command, **arguments):
        """Return the result that comes back, or raise the error."""
        return unwrap(wire.encode(self.reply(command, **arguments)), "alice")

    def call(self, name, *args, **kwargs):
        return self.ask("call", name=name, args=list(args), kwargs=kwargs)

    def set(self, obj_id, obj, wrapped=True, tags=()):
        about = {"id": obj_id, "wrapped": wrapped, "tags": list(tags), "description": None}
        self.ask("set", objects=[{"obj": obj, **about}])

    def ids(self):
        """Return the ids of what this coordinator sees."""
        return set(self.session.objects.current_objects())

    def train_config(self, model_id, loss_id, **settings):
        config = sy.TrainConfig(
            None, None, model_id=model_id, loss_fn_id=loss_id, seed=1, **settings
        )
        self.ask("train_config", fields=config.to_fields())

    def prepare(self, **settings):
        """Send a model, "model", a loss function, "loss", and their config."""
        self.set("model", classifier())
        self.set("loss", nll)
        self.train_config("model", "loss", **settings)


@pytest.fixture
def pair(worker) -> tuple[Coordinator, Coordinator]:
    dispatcher = Dispatcher(worker)
    return Coordinator(dispatcher, "first"), Coordinator(dispatcher, "second")


def test_only_training_and_counting_is_offered_by_default(worker, own):
    assert Dispatcher(worker).callable_methods() == DEFAULT
    expected = [
        "from_mixin",
        "of_class",
        "own",
        "raise_error",
        "return_large",
        "return_set",
        "static",
    ]
    assert Dispatcher(own).callable_methods() == sorted([*DEFAULT, *expected])


def test_methods_of_a_subclass_can_be_called(own):
    someone = Coordinator(Dispatcher(own), "someone")
    assert someone.call("own", 5) == someone.call("own", value=5) == 5
    assert someone.call("from_mixin") == "mixin"
    assert someone.call("static") == "static" and someone.call("of_class") == "Own"
    assert someone.call("fit", "blobs") == "own fit of blobs"


REFUSED = [
    "_private", "__call__", "__class__", "__init__", "secret", "constant", "instance", "Inner",
    "datasets", "add_dataset", "remove_dataset", "load_data", "register_obj", "set_obj", "get_obj",
    "rm_obj", "start", "stop", "call", "current_objects", "find_by_id", "search_objects",
    "train_config_from", "current_model", "_dispatcher", "nothing", "",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_else_can_be_called(own, name):
    someone = Coordinator(Dispatcher(own), "someone")
    with pytest.raises(
        UnknownCommand, match=f"worker 'own' offers no remote method '{name}'; it offers: "
    ) as refused:
        someone.call(name)
    assert "own" in refused.value.available


@pytest.mark.parametrize("command", ["hello", "eval", "_set", "__init__", "job", ""])
def test_unknown_commands_are_refused_with_the_known_ones(pair, command):
    with pytest.raises(UnknownCommand) as refused:
        pair[0].ask(command)
    assert refused.value.available == [
        "call",
        "cancel",
        "delete",
        "get",
        "operate",
        "search",
        "set",
        "train_config",
    ]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("get", {}),
        ("get", {"id": 1, "more": 2}),
        ("get", {1: 2}),
        ("set", {"objects": [{"id": 1}]}),
        ("set", {"id": 1}),
        ("call", {}),
        ("call", {"name": "fit", "args": 3, "kwargs": {}}),
        ("call", {"name": "fit", "args": [], "kwargs": []}),
    ],
    ids=str,
)
def test_commands_with_other_arguments_are_malformed(pair, command, arguments):
    frame = wire.encode(wire.Request(9, command, arguments))
    with pytest.raises(MalformedMessage, match=f"command '{command}'"):
        unwrap(pair[0].dispatcher.handle(frame, pair[0].session), "alice")


@pytest.mark.parametrize("fits", [-1, 2**63, 1.0, True, "1", None, [1]], ids=str)
def test_an_impossible_number_of_fits_is_refused(pair, fits):
    fields = sy.TrainConfig(None, None, model_id=1, loss_fn_id=2).to_fields()
    with pytest.raises(
        MalformedMessage, match=r"argument 'fits' is .*; expected an integer from 0 to "
    ):
        pair[0].ask("train_config", fields=fields, fits=fits)
    assert pair[0].session.training.config is None
    pair[0].ask("train_config", fields=fields, fits=2**63 - 1)
    assert pair[0].session.training.config is not None


def test_what_cannot_be_read_is_answered_if_it_has_a_header(pair):
    frame = wire.encode(wire.Request(77, "get", {"id": 1}))
    answer = wire.decode(pair[0].dispatcher.handle(frame[:-1], pair[0].session))
    assert isinstance(answer, wire.Failure) and (answer.id, answer.type) == (77, "MalformedMessage")
    answer = wire.decode(pair[0].dispatcher.handle(wire.encode(wire.Reply(78, 1)), pair[0].session))
    assert (answer.id, answer.message) == (
        78,
        "malformed message: a Reply where a Request is expected.",
    )
    with pytest.raises(MalformedMessage):
        pair[0].dispatcher.handle(b"GET / HTTP/1.1\r\n", pair[0].session)


def test_a_failure_tells_type_fields_call_and_traceback(pair):
    failure = pair[0].reply("call", name="fit", args=[], kwargs={"dataset_key": "blobs"})
    assert isinstance(failure, wire.Failure) and failure.id == 9
    assert (failure.type, failure.fields) == ("TrainConfigMissing", {"worker": "alice"})
    assert failure.message == str(TrainConfigMissing("alice"))
    assert failure.call == "fit(dataset_key='blobs')"
    assert failure.traceback.startswith("Traceback") and "federated_client.py" in failure.traceback


def test_the_failure_of_an_own_method_becomes_a_remote_error(own):
    with pytest.raises(KeyError, match="KeyError: 'k'") as failed:
        Coordinator(Dispatcher(own), "someone").call("raise_error", "plain")
    error = failed.value
    assert isinstance(error, RemoteError)
    assert (error.type_name, error.call, error.message) == (
        "KeyError",
        "raise_error('plain')",
        "'k'",
    )
    assert "in raise_error" in error.traceback


@pytest.mark.parametrize(
    ("what", "text"), [("surrogate", r"ValueError: \\udcff"), ("wordless", "Wordless: ")]
)
def test_every_failure_is_answered_whatever_its_text(own, what, text):
    with pytest.raises(RemoteError, match=text):
        Coordinator(Dispatcher(own), "someone").call("raise_error", what)


def test_a_result_that_cannot_travel_is_a_failure(own):
    with pytest.raises(NotSerializable, match=r"a value of type builtins\.set"):
        Coordinator(Dispatcher(own), "someone").call("return_set")


def test_a_reply_over_the_limit_is_a_failure(own):
    someone = Coordinator(own._dispatcher, "someone")
    with pytest.raises(MessageTooLarge, match=r"the reply to return_large\(\) of 'own'") as refused:
        someone.call("return_large")
    assert refused.value.limit == LIMIT < refused.value.size
    assert someone.call("own", 1) == 1


@pytest.mark.parametrize(
    ("value", "error"),
    [(torch.zeros(LIMIT), MessageTooLarge), ({1}, NotSerializable)],
    ids=["large", "set"],
)
def test_an_object_that_cannot_be_delivered_stays_on_the_worker(own, value, error):
    own.set_obj(sy.ObjectWrapper(value, 5, tags=["#offered"]))
    someone = Coordinator(own._dispatcher, "someone")
    for _ in range(2):
        with pytest.raises(error):
            someone.ask("get", id=5)
    assert own.objects_count() == 1


def test_get_takes_the_object_off_the_worker(pair, worker):
    pair[0].set(1, torch.ones(2), wrapped=False)
    answer = pair[0].ask("get", id=1)
    assert torch.equal(answer["obj"], torch.ones(2)) and answer["wrapped"] is False
    assert pair[0].ids() == set()
    with pytest.raises(ObjectNotFoundError):
        pair[0].ask("get", id=1)


def test_each_coordinator_has_its_own_config(pair, worker):
    first, second = pair
    first.prepare(batch_size=5)
    with pytest.raises(TrainConfigMissing):
        second.call("fit", "blobs")
    with pytest.raises(TrainConfigMissing):
        worker.fit("blobs")
    second.train_config("none", "none", batch_size=9)
    assert first.session.training.config.batch_size == 5
    assert first.call("evaluate", "blobs")["nr_predictions"] == 20
    with pytest.raises(ObjectNotFoundError):
        second.call("evaluate", "blobs")


def test_a_job_uses_the_config_of_its_time(pair):
    first, _ = pair
    first.prepare(max_nr_batches=0)
    request = wire.Request(1, "call", {"name": "fit", "args": ["blobs"], "kwargs": {}})
    job = first.dispatcher.job(request, first.session)
    first.train_config("model", "loss")
    assert unwrap(first.dispatcher.run(job), "alice") is None  # no batches: the first config
    assert first.call("fit", "blobs") is not None


def test_only_long_calls_run_in_the_background(own):
    dispatcher, session = Dispatcher(own), Session("someone")

    def job(name):
        return dispatcher.job(
            wire.Request(1, "call", {"name": name, "args": [], "kwargs": {}}), session
        )

    assert {name for name in dispatcher.callable_methods() if job(name).place != "compute"} == {
        "clear_objects",
        "list_objects",
        "objects_count",
        "privacy_spent",
    }


def test_a_model_outlives_its_pointer_until_the_next_config(pair):
    first, _ = pair
    first.prepare()
    first.ask("delete", ids=["model", "loss"])
    assert first.ids() == set()
    assert first.call("fit", "blobs") is not None
    fetched = first.ask("get", id="model")  # and it can still be fetched, once
    assert fetched["wrapped"] and not torch.equal(
        fetched["state"]["output.weight"], classifier().output.weight
    )
    with pytest.raises(ObjectNotFoundError):
        first.call("fit", "blobs")

    first.prepare()
    first.ask("delete", ids=["model", "loss"])
    first.train_config("model", "loss")  # the next config: what was kept is gone
    with pytest.raises(ObjectNotFoundError):
        first.call("fit", "blobs")


def test_clear_removes_the_objects_of_its_coordinator_only(pair, worker):
    first, second = pair
    first.prepare()
    second.set("theirs", torch.ones(1), wrapped=False)
    worker.set_obj(sy.ObjectWrapper(None, "owner's", tags=["#offered"]))
    worker.set_obj(sy.ObjectWrapper(None, "untagged"))
    for arguments in ((), (False,)):
        first.call("clear_objects", *arguments)
    assert (first.ids(), second.ids()) == ({"owner's"}, {"owner's", "theirs"})
    assert worker.current_objects().keys() == {"owner's", "untagged"}
    with pytest.raises(TrainConfigMissing):
        first.call("fit", "blobs")


def test_the_end_of_a_session_takes_its_objects(pair, worker):
    first, second = pair
    first.prepare()
    second.set("theirs", torch.ones(1), wrapped=False)
    first.dispatcher.end_session(first.session)
    assert (first.ids(), second.ids()) == (set(), {"theirs"})
    assert first.session.training.config is None
    assert first.dispatcher.sessions.keys() == {"second"}


def test_search_tells_ids_tags_and_shapes_but_no_data(pair):
    tensor = torch.ones(3, 2, dtype=torch.float64).t().requires_grad_()
    about = {"id": 1, "wrapped": False, "tags": ["#b", "#a"], "description": "d"}
    pair[0].ask("set", objects=[{"obj": tensor, **about}])
    pair[0].set(2, nll, tags=["#a", "#b"])
    of_both = {"tags": ["#a", "#b"], "description": None}
    of_a_tensor = {"shape": (2, 3), "stride": (3, 1), "dtype": 7, "requires_grad": True}
    assert pair[0].ask("search", query=["#a"]) == [
        {"id": 1, **of_both, "description": "d", **of_a_tensor},
        {"id": 2, **of_both, "shape": None},
    ]


def test_an_abandoned_job_stops_before_its_next_batch(pair):
    first, _ = pair
    first.prepare(batch_size=1, epochs=1000)
    job = first.dispatcher.job(
        wire.Request(1, "call", {"name": "fit", "args": ["blobs"], "kwargs": {}}), first.session
    )
    job.abandoned.set()
    with pytest.raises(CallAbandoned, match="worker 'alice' stopped training"):
        unwrap(first.dispatcher.run(job), "alice")


def test_a_call_that_is_cancelled_is_abandoned(pair):
    first, second = pair
    first.prepare()
    request = wire.Request(5, "call", {"name": "fit", "args": ["blobs"], "kwargs": {}})
    job = first.dispatcher.job(request, first.session)
    second.ask("cancel", request_id=5)  # that is the other coordinator's request of this id
    assert unwrap(first.dispatcher.run(job), "alice") is not None
    first.ask("cancel", request_id=5)
    with pytest.raises(CallAbandoned):
        unwrap(first.dispatcher.run(job), "alice")
    first.ask("cancel", request_id=99)


def test_a_private_object_is_not_handed_out(pair, worker):
    secret = torch.ones(1)
    secret.id, secret.private, secret.tags = 5, True, {"#secret"}
    worker.set_obj(secret)
    with pytest.raises(GetNotPermittedError, match="does not hand out the object with id 5"):
        worker.request_obj(5)  # here, coordinator and owner are one process
    with pytest.raises(ObjectNotFoundError):
        pair[0].ask("get", id=5)
    assert worker.objects_count() == 1
    assert worker.list_objects_remote() == "{5: <private Tensor>}"


def test_a_call_is_over_when_it_has_returned(pair):
    pair[0].call("objects_count")
    assert running_call.get() is None


def test_coordinators_may_call_at_the_same_time(pair):
    for coordinator, batch_size in zip(pair, (4, 8), strict=True):
        coordinator.set(f"model {batch_size}", classifier())
        coordinator.set(f"loss {batch_size}", nll)
        coordinator.train_config(f"model {batch_size}", f"loss {batch_size}", batch_size=batch_size)
    alone = [coordinator.call("evaluate", "blobs") for coordinator in pair]
    results = {}

    def work(index):
        results[index] = [pair[index].call("evaluate", "blobs") for _ in range(5)]

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {index: [alone[index]] * 5 for index in (0, 1)}


@pytest.mark.parametrize(("verbose", "level"), [(True, logging.INFO), (False, logging.DEBUG)])
def test_every_request_is_logged_with_its_duration(caplog, verbose, level):
    worker = sy.VirtualWorker(id="alice", verbose=verbose)
    with caplog.at_level(logging.DEBUG, "syft"):
        worker.objects_count_remote()
        with pytest.raises(TrainConfigMissing):
            worker.call("fit", dataset_key="blobs")
    done, failed = (record for record in caplog.records if record.name == "syft.dispatch")
    assert done.levelno == failed.levelno == level
    assert done.getMessage().startswith("worker alice: objects_count() done in ")
    assert "fit(dataset_key='blobs') failed (TrainConfigMissing) in " in failed.getMessage()
