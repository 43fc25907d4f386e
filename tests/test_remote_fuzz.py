"""Operations that nobody wrote, on tensors that they share, forward and back.

They end in a result or an ordinary error. They run in a child process, so that a crash of torch's
kernels fails the test: `FUZZ_REQUESTS=20000 pytest tests/test_remote_fuzz.py` tries more of them.
"""

import contextlib
import json
import os
import random
import resource
import warnings
from pathlib import Path

import torch

from syft.graph import sizes
from syft.graph.kinds import DTYPES
from syft.remote.operators import resolve
from tests.e2e.operator_samples import SAMPLES
from tests.e2e.test_fuzz import INTEGERS, constant_of, tensor_of

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "1500"))
SESSION = 40
"""Requests that share their tensors."""
KEPT = 24
"""Tensors that a session keeps."""
MEMORY = 8 * 2**30


def overloads():
    """Return the names and schemas of all remote operators."""
    found = {}
    for schema in torch._C._jit_get_all_schemas():
        name = f"{schema.name}.{schema.overload_name}".rstrip(".")
        if resolve(name) is not None:
            found[name] = schema
    return sorted(found.items())


OVERLOADS = overloads()
IN_PLACE = [each for each in OVERLOADS if resolve(each[0]).writes is not None]


class OfAnotherKind(BaseException):
    """A result is no tensor of the kinds that operators were audited with."""


class Client:
    """Makes the requests of a session, and runs them.

    Args:
        rng: what decides them.
    """

    def __init__(self, rng):
        self.rng = rng
        self.tensors = [self.fresh() for _ in range(6)]

    def fresh(self):
        tensor = tensor_of(self.rng)
        if tensor.is_floating_point() and self.rng.random() < 0.7:
            tensor.requires_grad_()
        return tensor

    def argument(self, kind):
        if kind in ("Tensor", "Optional[Tensor]"):
            if kind.startswith("Optional") and self.rng.random() < 0.5:
                return None
            return self.rng.choice(self.tensors) if self.rng.random() < 0.7 else self.fresh()
        if "Tensor" in kind:
            return [self.argument("Tensor") for _ in range(self.rng.choice((0, 1, 2, 3)))]
        if "Device" in kind or "Generator" in kind:
            return None
        return constant_of(kind, self.rng)

    def call(self):
        """Return an operation: a valid one with changes, or one of random arguments."""
        name, schema = self.rng.choice(IN_PLACE if self.rng.random() < 0.15 else OVERLOADS)
        samples = SAMPLES.get(schema.name) or SAMPLES.get(schema.name.removesuffix("_"))
        kinds = [str(each.type) for each in schema.arguments]
        if samples and self.rng.random() < 0.7:
            values = list(self.rng.choice(samples))[: len(kinds)]
            values = [own(value, self.rng) for value in values]
            for _ in range(self.rng.choice((0, 0, 1, 2))):
                place = self.rng.randrange(len(values))
                values[place] = self.argument(kinds[place])
        else:
            needed = sum(not each.has_default_value() for each in schema.arguments)
            chosen = kinds[: self.rng.randint(needed, len(kinds))]
            values = [self.argument(kind) for kind in chosen]
        return name, values

    def forward(self):
        name, values = self.call()
        operator = resolve(name)
        yield name, described(values)
        named = dict(zip(operator.keywords, values[operator.positional :], strict=False))
        with torch.set_grad_enabled(self.rng.random() < 0.9):
            result = operator.function(*values[: operator.positional], **named)
        results = result if isinstance(result, (list, tuple)) else [result]
        for each in results:
            if isinstance(each, torch.Tensor):
                fits = each.layout == torch.strided and each.device.type == "cpu"
                if not fits or each.dtype not in DTYPES.values():
                    raise OfAnotherKind(described([each]))
                if each.numel() < 100_000:
                    self.tensors.append(each)
        self.rng.shuffle(self.tensors)
        del self.tensors[KEPT:]

    def overwrite(self):
        tensor = self.rng.choice([t for t in self.tensors if t.dtype == torch.int64] or [None])
        if tensor is not None:
            value = self.rng.choice(INTEGERS)
            yield "overwrite", [described([tensor]), value]
            if self.rng.random() < 0.5:
                tensor = resolve("aten::detach").function(tensor)
            resolve("aten::fill_.Scalar").function(tensor, value)

    def backward(self):
        ends = [tensor for tensor in self.tensors if tensor.requires_grad]
        if ends:
            end = self.rng.choice(ends)
            yield "backward", described([end])
            loss = end.sum()
            (loss.abs() if loss.is_complex() else loss).backward(
                retain_graph=self.rng.random() < 0.5
            )

    def requests(self, number):
        """Make and run so many requests; yield each before it is run."""
        for _ in range(number):
            chance = self.rng.random()
            step = (
                self.overwrite
                if chance < 0.08
                else self.backward
                if chance < 0.25
                else self.forward
            )
            with contextlib.suppress(Exception):
                yield from step()


def own(value, rng):
    """Return an argument of a sample that a session may change and go back to."""
    if isinstance(value, (list, tuple)):
        return [own(item, rng) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    copied = value.clone()
    return copied.requires_grad_() if copied.is_floating_point() and rng.random() < 0.7 else copied


def described(value):
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{list(value.shape)}{value.stride()}"
    return [described(item) for item in value] if isinstance(value, (list, tuple)) else repr(value)


def in_child(first, sessions, where):
    """Run sessions in a forked child; return what it did last if it did not end as it should."""
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            warnings.simplefilter("ignore")
            sizes.max_result_bytes.set(2**26)
            sizes.MAX_WORK = 2**26
            with open(where, "w") as file:
                for session in range(first, first + sessions):
                    for request in Client(random.Random(session)).requests(SESSION):
                        file.seek(0)
                        file.truncate()
                        file.write(json.dumps([session, request]))
                        file.flush()
            os._exit(0)
        except BaseException as error:
            with contextlib.suppress(BaseException), open(where, "a") as file:
                file.write(f" {error!r}")
            os._exit(77)
    _, status = os.waitpid(pid, 0)
    return None if status == 0 else f"status {status}: {Path(where).read_text()}"


def test_operations_that_nobody_wrote_end_in_a_result_or_an_ordinary_error(tmp_path):
    assert in_child(0, max(1, REQUESTS // SESSION), str(tmp_path / "request")) is None
