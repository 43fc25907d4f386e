"""Structures nobody wrote: of random nodes, and real ones with mistakes.

They end in a result or an ordinary error.

They run in a child process, so that a crash of torch's kernels fails the test, and the structure
that crashed is found: `FUZZ_CASES=50000 pytest tests/e2e/test_fuzz.py` tries more of them.
"""

import contextlib
import copy
import os
import random
import resource
import warnings
from pathlib import Path

import msgpack
import pytest
import torch
from torch import nn

import syft as sy
from syft import wire
from syft.access.limits import Budget
from syft.commands import COMMANDS
from syft.dispatch import Session
from syft.exceptions import InvalidReply, MalformedMessage, OperatorNotAllowed
from syft.graph import GraphModule, convert, for_inference, read_structure
from syft.graph.metering import meter
from syft.graph.operators import ALLOWED, resolve
from syft.graph.returned import with_state
from tests.graph.test_interpret import Control, Net, Recurrent, Tied
from tests.models import blobs, classifier, make_config, nll

CASES = int(os.environ.get("FUZZ_CASES", "2000"))

MEMORY = 8 * 2**30
"""Bytes of addresses that the child may use, torch's libraries among them; a tensor of 10**12
elements is refused."""


def overloads():
    """Return the names of the operators that structures are made of."""
    names = []
    for schema in torch._C._jit_get_all_schemas():
        base = schema.name
        plain = (
            base.removesuffix("_")
            if base.startswith("aten::") and not base.endswith("__")
            else base
        )
        if plain in ALLOWED:
            name = f"{base}.{schema.overload_name}" if schema.overload_name else base
            if resolve(name) is not None and "Enum" not in str(schema):
                names.append((name, schema))
    return sorted(names, key=lambda each: each[0])


OVERLOADS = overloads()
INTEGERS = (0, 1, 2, 3, -1, -2, 4, 5, 7, 16, 100, -(2**63), 2**63 - 1, 2**31, 10**12)
FLOATS = (0.0, 1.0, -1.0, 0.5, 1e-5, float("inf"), float("-inf"), float("nan"), 1e300)
TEXTS = (
    "",
    "mean",
    "sum",
    "reflect",
    "constant",
    "trunc",
    "floor",
    "nearest",
    "bilinear",
    "ij,jk->ik",
    "none",
    "a",
)
SHAPES = (
    (),
    (0,),
    (1,),
    (3,),
    (2, 3),
    (3, 3),
    (2, 3, 4),
    (1, 2, 5, 5),
    (2, 2, 3, 3),
    (1, 1, 2, 3, 3),
    (0, 3),
)
DTYPES = (
    "float32",
    "float32",
    "float32",
    "int64",
    "bool",
    "float64",
    "uint8",
    "complex64",
    "bfloat16",
    "int32",
)


def constant_of(kind, rng):
    """Return a plain constant of a schema's type, now and then of another; None for tensors."""
    if rng.random() < 0.02:
        kind = rng.choice(("int", "float", "bool", "str", "List[int]"))
    if kind.startswith("Optional["):
        return None if rng.random() < 0.5 else constant_of(kind[9:-1], rng)
    if kind.startswith("List["):
        return [constant_of(kind[5:-1], rng) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4)))]
    if kind == "int":
        return rng.choice(INTEGERS[:7] if rng.random() < 0.7 else INTEGERS)
    if kind in ("float", "number"):
        return rng.choice(FLOATS) if rng.random() < 0.7 else rng.choice(INTEGERS)
    if kind == "bool":
        return rng.random() < 0.5
    return rng.choice(TEXTS) if kind == "str" else None


def tensor_of(rng):
    dtype, shape = getattr(torch, rng.choice(DTYPES)), rng.choice(SHAPES)
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    values = torch.randint(-2, 4, shape, generator=generator).to(dtype)
    if dtype.is_floating_point and rng.random() < 0.5:
        values = torch.randn(shape, generator=generator).to(dtype)
        if values.numel() and rng.random() < 0.2:
            values.view(-1)[0] = rng.choice(FLOATS[:-1])
    return values


class Maker:
    """Makes the fields of a structure of random nodes."""

    def __init__(self, rng):
        self.rng, self.constants, self.tensors, self.operators = rng, [], [], {}
        self.count = 2  # the argument and the flag

    def constant(self, value):
        self.constants.append(value)
        return -len(self.constants)

    def argument(self, kind, nodes, visible):
        """Return the number of a value for an argument of this type; it may need a node of its
        own."""
        bare = (
            kind.removeprefix("Optional[").removesuffix("]")
            if kind.startswith("Optional[Tensor")
            else kind
        )
        if self.rng.random() < 0.02 or (visible and kind in ("t", "Any")):
            return self.rng.choice(visible)
        if bare == "Tensor":
            if self.rng.random() < 0.6:
                return self.rng.choice(visible)
            tensor = tensor_of(self.rng)
            self.tensors.append(tensor)
            dtype = str(tensor.dtype).removeprefix("torch.")
            return self.constant({"tensor": [len(self.tensors) - 1, dtype, list(tensor.shape)]})
        if kind.startswith("Dict"):
            pair = [self.constant("a"), self.rng.choice(visible)]
            return self.node(nodes, "prim::DictConstruct", pair, 1)[0]
        if "Tensor" in kind or "[t]" in kind or kind == "List[Any]":
            items = [
                self.argument("Tensor", nodes, visible)
                for _ in range(self.rng.choice((0, 1, 2, 3)))
            ]
            return self.node(nodes, "prim::ListConstruct", items, 1)[0]
        return self.constant(constant_of(kind, self.rng))

    def node(self, nodes, name, arguments, results, *blocks):
        operator = self.operators.setdefault(name, len(self.operators))
        nodes.append([operator, arguments, results, *([list(blocks)] if blocks else [])])
        numbers = list(range(self.count, self.count + results))
        self.count += results
        return numbers

    def block(self, visible, depth, size):
        """Return nodes, and the values that are visible behind them."""
        nodes, visible = [], list(visible)
        for _ in range(size):
            chance = self.rng.random()
            if chance < 0.05 and depth < 3:
                condition = self.constant(self.rng.random() < 0.5)
                sides = [[0, *self.block(visible, depth + 1, 2)] for _ in range(2)]
                blocks = [[0, inner, [self.rng.choice(seen)]] for _, inner, seen in sides]
                visible += self.node(nodes, "prim::If", [condition], 1, *blocks)
            elif chance < 0.1 and depth < 3:
                turns, going = self.constant(self.rng.choice(INTEGERS)), self.constant(True)
                start = self.rng.choice(visible)
                inputs = [self.count, self.count + 1]
                self.count += 2
                inner, seen = self.block(visible + inputs, depth + 1, 2)
                block = [2, inner, [self.constant(self.rng.random() < 0.8), self.rng.choice(seen)]]
                visible += self.node(nodes, "prim::Loop", [turns, going, start], 1, block)
            else:
                name, schema = self.rng.choice(OVERLOADS)
                arguments = schema.arguments
                needed = sum(not each.has_default_value() for each in arguments)
                chosen = arguments[: self.rng.randint(needed, len(arguments))]
                numbers = [self.argument(str(each.type), nodes, visible) for each in chosen]
                visible += self.node(nodes, name, numbers, len(schema.returns))
        return nodes, visible

    def fields(self):
        # most nodes fail, and then it ends
        nodes, visible = self.block([0], 0, self.rng.choice((1, 1, 2, 3, 8)))
        return {
            "arguments": [["x"]],
            "state": [],
            "aliases": {},
            "constants": self.constants,
            "operators": list(self.operators),
            "nodes": nodes,
            "result": self.rng.choice(visible),
        }


def mutated(value, rng, depth=0):
    """Change one thing in a nested value, in place as far as it can be; return it."""
    if isinstance(value, (list, dict)) and value and rng.random() < 0.97:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        chance = rng.random()
        if chance < 0.06 and isinstance(value, list):
            value.insert(key, copy.deepcopy(rng.choice(value)))
        elif chance < 0.1:
            del value[key]
        else:
            value[key] = mutated(value[key], rng, depth + 1)
        return value
    if type(value) is int and rng.random() < 0.6:
        changed = rng.choice((value + 1, value - 1, -value, 0, -1, 2**63 - 1, rng.randrange(64)))
        return max(-(2**63), min(2**63 - 1, changed))
    return rng.choice(
        (*INTEGERS, *FLOATS, *TEXTS, None, True, [], {}, [[]], {"tensor": [0, "float32", [1]]})
    )


def parts_of(model):
    converted = convert(model)
    return msgpack.unpackb(converted.structure), converted.state, converted.constants


def real_models():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traces = [
            torch.jit.trace(model, x)
            for model, x in ((Net(), torch.randn(2, 1, 10, 10)), (Tied(), blobs().data))
        ]
    scripts = [torch.jit.script(Recurrent(nn.LSTM)), torch.jit.script(Control())]
    return [*map(parts_of, (*traces, *scripts, nll))]


def run_case(rng, models):
    """Make a structure and run it; return the structure, for those who look for what crashed."""
    inputs = [tensor_of(rng)]
    if rng.random() < 0.5:
        maker = Maker(rng)
        fields, state, constants = maker.fields(), [], maker.tensors
    else:
        fields, state, constants = rng.choice(models)
        fields = copy.deepcopy(fields)
        fields["operators"] = list(fields["operators"])
        inputs = [rng.choice((blobs().data, torch.randn(2, 1, 10, 10), inputs[0]))] * len(
            fields["arguments"]
        )
        for _ in range(rng.choice((1, 1, 2, 4))):
            mutated(fields, rng)
    yield msgpack.packb(
        [fields, [repr(tensor) for tensor in constants], repr(inputs)], default=repr
    )
    try:
        read = read_structure(msgpack.packb(fields))
    except (MalformedMessage, OperatorNotAllowed):
        return
    budget = Budget("fuzz", seconds=1, bytes=64 * 2**20)
    budget.begin()
    token = meter.set(budget)
    try:
        model = GraphModule(
            read, [each.clone() for each in state], [each.clone() for each in constants]
        )
        result = model.train(rng.random() < 0.5)(*inputs)
        if rng.random() < 0.3 and isinstance(result, torch.Tensor) and result.requires_grad:
            result.sum().backward()
        if not model.training:
            with torch.inference_mode():
                for_inference(model)(*inputs)
    except Exception as error:
        str(error)
    finally:
        meter.reset(token)


def in_child(number, first, models, where):
    """Run cases in a forked child; return the case that crashed it, or None."""
    problem = Path(where).with_suffix(".error")
    problem.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            warnings.simplefilter("ignore")
            with open(where, "wb", buffering=0) as file:
                for case in range(first, first + number):
                    for described in run_case(random.Random(case), models):
                        file.seek(0)
                        file.write(msgpack.packb([case, described]))
            os._exit(0)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                problem.write_text(repr(error))
            os._exit(77)
    _, status = os.waitpid(pid, 0)
    if status == 0:
        return None
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(Path(where).read_bytes())
    case, described = next(iter(unpacker))
    reason = problem.read_text() if problem.exists() else f"status {status}"
    return case, reason, msgpack.unpackb(described)


def test_structures_that_nobody_wrote_end_in_a_result_or_an_ordinary_error(tmp_path):
    models, failures, case = real_models(), [], 0
    while case < CASES:
        crashed = in_child(CASES - case, case, models, str(tmp_path / "case"))
        if crashed is None:
            break
        failures.append(crashed)
        case = crashed[0] + 1
        if len(failures) >= int(os.environ.get("FUZZ_CRASHES", "1")):
            break
    assert not failures, "\n".join(
        f"case {number}: {reason}: {what}" for number, reason, what in failures
    )


def test_replies_that_nobody_wrote_end_in_a_model_or_an_error_that_names_the_worker():
    sent = Tied()
    state = {name: tensor.detach().clone() for name, tensor in sent.named_parameters()}
    state |= {name: tensor.clone() for name, tensor in sent.named_buffers()}
    rng, taken = random.Random(0), 0
    for _ in range(CASES // 2):
        reply = dict(state)
        for _ in range(rng.choice((0, 1, 2))):
            name = rng.choice(list(reply))
            changes = (
                tensor_of(rng),
                torch.full((3,), rng.choice(FLOATS[:-1])),
                rng.choice(INTEGERS),
                None,
                [1],
            )
            reply[rng.choice((name, name, "more", 3))] = rng.choice(changes)
            if rng.random() < 0.2:
                reply.pop(name, None)
        try:
            model = with_state(sent, reply, "alice")
        except InvalidReply as error:
            assert "'alice'" in str(error)
        else:
            taken += 1
            assert all(torch.isfinite(tensor).all() for tensor in model.parameters())
    assert 0 < taken < CASES // 2


def requests():
    """Return valid requests, as plain values."""
    stored = {"wrapped": True, "tags": ["a"], "description": None}
    objects = [
        {"id": 1, "obj": classifier(), **stored},
        {"id": 2, "obj": nll, **stored},
        {"id": 3, "obj": torch.ones(4, 3), **stored, "wrapped": False},
    ]
    fields = make_config(max_nr_batches=2).to_fields() | {"model_id": 1, "loss_fn_id": 2}
    calls = [
        ("fit", {"dataset_key": "blobs"}),
        ("evaluate", {"dataset_key": "blobs"}),
        ("list_objects", {}),
    ]
    return [
        *(("set", {"objects": [each]}) for each in objects),
        ("train_config", {"fields": fields, "fits": 3}),
        ("train_config", {"fields": fields, "fits": 3, "objects": objects[:2]}),
        (
            "operate",
            {
                "stream": 1,
                "number": 0,
                "operations": [
                    ["set", [3], [objects[2]], {}, 1, True, None],
                    ["aten::add.Tensor", [5], [wire.reference(3), 1.5], {}, 1, True, None],
                    ["delete", [], [5], {}, 0, False, None],
                ],
                "values": [3],
                "geometries": [3],
                "answer": True,
            },
        ),
        *(("call", {"name": name, "args": [], "kwargs": kwargs}) for name, kwargs in calls),
        ("get", {"id": 3}),
        ("search", {"query": ["a"]}),
        ("delete", {"ids": [3, 4]}),
        ("cancel", {"request_id": 7}),
    ]


def changed_arguments(value, rng):
    """Return a copy of a request's arguments with one thing changed.

    Models, tensors and references stay whole.
    """
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key, others = rng.choice(list(value)), dict(value)
        if rng.random() < 0.1:
            del others[key]
        else:
            others[key] = changed_arguments(value[key], rng)
        return others
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], changed_arguments(value[place], rng), *value[place + 1 :]]
    return rng.choice(
        (*INTEGERS, *FLOATS, *TEXTS, None, True, [], {}, torch.ones(2), "blobs", "Adam", "LBFGS")
    )


@pytest.mark.filterwarnings("ignore")
def test_requests_that_nobody_wrote_get_a_reply_or_a_failure():
    worker = sy.VirtualWorker(id="fuzzed")
    worker.add_dataset(blobs(), "blobs")
    rng, kinds, known = random.Random(0), [], requests()
    dispatcher, session = worker._dispatcher, Session("fuzz")
    for _ in range(CASES // 4):
        command, arguments = rng.choice(known)
        if command == "operate":  # each message of a stream is carried out once
            arguments = {**arguments, "stream": rng.getrandbits(60)}
        if rng.random() < 0.8:
            arguments = changed_arguments(arguments, rng)
        if not isinstance(arguments, dict) or is_long(arguments):
            continue
        reply = dispatcher.handle(wire.encode(wire.Request(7, command, arguments)), session)
        if not reply:  # of operations, if no answer was asked for
            assert (command, arguments["answer"]) == ("operate", False)
            continue
        answer = wire.decode(reply)
        kinds.append((command, type(answer).__name__))
        assert answer.id == 7
    assert {(command, kind) for command in COMMANDS for kind in ("Reply", "Failure")} == set(kinds)


def is_long(arguments):
    """Return whether a config asks for training without end, which limits of time are for."""
    fields = arguments.get("fields")
    numbers = (
        [fields.get(name) for name in ("epochs", "max_nr_batches")]
        if isinstance(fields, dict)
        else []
    )
    return any(isinstance(number, (int, float)) and number > 100 for number in numbers)
