"""Which models are taken from others: every layer of torch.nn; nothing that could do more than compute."""

import contextlib
import io
import re
import zipfile
from pathlib import Path
from typing import Optional

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import syft as sy
from syft import archive, archive_data, operators, vetting
from syft.exceptions import MalformedMessage, OperatorNotAllowed, SyftError
from syft.torchscript import dump, load

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Have nothing pass because it passed before."""
    monkeypatch.setattr(vetting, "_memory", vetting.Memory(4))


def through(obj, more=()):
    """Send a model or function through what a message does to it."""
    return load(*dump(obj), more)


def saved(obj):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(obj), buffer)
    return buffer.getvalue()


def loaded(structure):
    return load(structure, {})


def rewritten(structure, change):
    """Return an archive whose files went through `change(name, bytes) -> bytes | None`, stored as torch wants them."""
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    reader = torch._C.PyTorchFileReader(io.BytesIO(structure))
    for name in reader.get_all_records():
        content = change(name, reader.get_record(name))
        if content is not None and not name.startswith((".data", "version")):
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return buffer.getvalue()


def with_source(text):
    """Return an archive whose only method is `text`, the source of a serialised class M."""
    return rewritten(saved(Plain()), lambda name, content: text.encode() if name.endswith(".py") else content)


SOURCE = """class Plain(Module):
  __parameters__ = []
  __buffers__ = []
  training : bool
  _is_full_backward_hook : Optional[bool]
{extra}  def forward(self: __torch__.{Plain},
    x: Tensor{argument}) -> Tensor:
{body}    return torch.relu(x)
"""


def source(extra="", argument="", body=""):
    return with_source(SOURCE.format(Plain=f"{__name__}.Plain", extra=extra, argument=argument, body=body))


class Plain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


class Saves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "/tmp/written-by-a-model")
        return x


class Reads(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", False, 10, dtype=torch.uint8)


class Prints(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print(x)
        return x


class Forks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.jit.wait(torch.jit.fork(torch.relu, x))


class Uninitialised(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.empty([100])


class Seeds(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return x


class NoGrad(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return x + 1


class Views(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_strided(x, [2], [1], 0)


class Unusual(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.igamma(x, x)


REFUSED = [
    (Saves, "aten::save"),
    (Reads, "aten::from_file"),
    (Prints, "prim::Print"),
    (Forks, "prim::fork"),
    (Uninitialised, "aten::empty"),
    (Seeds, "aten::manual_seed"),
    (NoGrad, "aten::set_grad_enabled"),
    (Views, "aten::as_strided"),
    (Unusual, "aten::igamma"),
]


NEVER = """
aten::save aten::from_file aten::set_ aten::data aten::resize_ aten::empty_like aten::new_empty aten::wait
aten::backward
aten::record_stream aten::manual_seed aten::set_grad_enabled aten::to_here aten::seed prim::Print prim::PythonOp
prim::IgnoredPythonOp prim::fork prim::rpc_async prim::rpc_sync prim::rpc_remote prim::TimePoint prim::data c10d::send
cuda::_set_device profiler::_record_function_enter quantized::linear prims::copy_to inductor::_alloc_from_pool
debugprims::load_tensor my_own::operator
"""


class InSubmodule(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.layers = nn.Sequential(nn.ReLU(), nn.Sequential(inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def saving_function(x):
    torch.save(x, "/tmp/written-by-a-model")
    return x


class InFunction(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return saving_function(x)


class InOtherMethod(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def other(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "/tmp/written-by-a-model")
        return x


class InBranchOfLoop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(3):
            if i > 1:
                torch.save(x, "/tmp/written-by-a-model")
        return x


class WithState(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = torch.ones(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self):
        return self.x, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.x = state[0]
        self.training = state[1]


class TestRefused:
    @pytest.mark.parametrize("model, operator", REFUSED)
    def test_by_name(self, model, operator):
        with pytest.raises(OperatorNotAllowed) as caught:
            through(model())
        assert caught.value.operator == operator
        assert operator in str(caught.value)

    @pytest.mark.parametrize("model, operator", REFUSED)
    def test_by_its_graph_alone(self, model, operator, monkeypatch):
        monkeypatch.setattr(vetting, "vet_archive", lambda *_: None)
        with pytest.raises(OperatorNotAllowed) as caught:
            through(model())
        assert caught.value.operator in (operator, "prim::Enter", "aten::is_grad_enabled")

    @pytest.mark.parametrize("model", [InFunction, InOtherMethod, InBranchOfLoop])
    @pytest.mark.parametrize("source_too", [True, False])
    def test_wherever_it_is(self, model, source_too, monkeypatch):
        if not source_too:
            monkeypatch.setattr(vetting, "vet_archive", lambda *_: None)
        for each in (model(), InSubmodule(model())):
            with pytest.raises(OperatorNotAllowed, match="aten::save"):
                through(each)

    def test_as_a_loss_function(self):
        with pytest.raises(OperatorNotAllowed, match="aten::save"):
            through(torch.jit.script(saving_function))

    def test_traced(self):
        with pytest.raises(OperatorNotAllowed, match="aten::from_file"):
            through(torch.jit.trace(lambda x: x + torch.from_file(__file__, False, 1), torch.zeros(1)))

    def test_a_method_that_loading_would_run(self):
        with pytest.raises(OperatorNotAllowed, match="__setstate__"):
            through(WithState())

    def test_again_after_it_was_refused(self):
        structure, tensors = dump(Saves())
        for _ in range(2):
            with pytest.raises(OperatorNotAllowed):
                load(structure, tensors)

    @pytest.mark.parametrize("name", NEVER.split())
    def test_never(self, name):
        assert not operators.is_allowed(name)
        assert operators.is_allowed(name, {name})

    def test_no_operator_with_a_file_name_or_a_stream(self):
        for schema in torch._C._jit_get_all_schemas():
            words = {argument.name for argument in schema.arguments} | {str(a.type) for a in schema.arguments}
            if words & {"filename", "Stream", "Storage", "RRef", "Future"}:
                assert not operators.is_allowed(schema.name), schema

    def test_only_what_torch_has_is_on_the_list(self):
        known = {schema.name for schema in torch._C._jit_get_all_schemas()}
        language = {name for name in operators.ALLOWED if name.startswith("prim::")}
        assert operators.ALLOWED - known <= language


class TestLoadingRunsNothing:
    """What torch.jit.load evaluates, by archives that torch would run."""

    def test_the_archive_that_the_others_change(self):
        x = torch.tensor([-1.0, 1.0])
        assert loaded(source())(x).tolist() == [0, 1]
        assert loaded(source(extra="  k : Final[int] = -3\n", argument=", k: int=3"))(x).tolist() == [0, 1]

    @pytest.mark.parametrize(
        "change",
        [
            {"extra": "  k : Final[int] = torch.len('abc')\n"},
            {"argument": ", k: int=torch.len('abc')"},
            {"argument": ", k: Tensor=torch.from_file('FILE', True, 4)"},
            {"extra": "  k : Final[Tensor] = torch.from_file('FILE', True, 4)\n"},
            {"argument": ", k: List[Tensor]=[torch.from_file('FILE', True, 4)]"},
        ],
    )
    def test_defaults_and_constants(self, change, tmp_path):
        file = tmp_path / "written"
        structure = source(**{key: text.replace("FILE", str(file)) for key, text in change.items()})
        with pytest.raises(OperatorNotAllowed, match="where loading evaluates"):
            loaded(structure)
        assert not file.exists()

    def test_torch_itself_runs_a_default(self, tmp_path):
        """The reason for the test above: if this fails, torch has become safer."""
        file = tmp_path / "written"
        structure = source(argument=f", k: Tensor=torch.from_file('{file}', True, 4)")
        with contextlib.suppress(RuntimeError):
            torch.jit.load(io.BytesIO(structure))
        assert file.exists()

    @pytest.mark.parametrize(
        "body, operator",
        [
            ("    torch.save(x, 'f')\n", "aten::save"),
            ("    s = torch.save\n    s(x, 'f')\n", "aten::save"),
            ("    ops.aten.save(x, 'f')\n", "aten::save"),
            ("    ops.my.own(x)\n", "my::own"),
            ("    x.resize_([10])\n", "aten::resize_"),
            ("    (x).resize_([10])\n", "aten::resize_"),
            ("    p = print\n    p(x)\n", "prim::Print"),
            ("    t = torch\n    t.save(x, 'f')\n", "torch"),
            ("    torch = x\n    torch.save(x, 'f')\n", "torch"),
            ("    'a'.ljust(10000000000)\n", "aten::ljust"),
            ("    __torch__.torch.classes.my.Own()\n", None),
        ],
    )
    def test_source(self, body, operator):
        with pytest.raises(SyftError) as caught:
            loaded(source(body=body))
        assert operator is None or caught.value.operator == operator

    @pytest.mark.parametrize(
        "text",
        [
            "import os\n",
            "@decorated\ndef f(x: Tensor) -> Tensor:\n  return x\n",
            "def f(x: Tensor) -> Tensor:\n  return (lambda y: y)(x)\n",
            "def f(:\n",
            "\x00",
            "# coding: ä\n",
            "x = 1\n",
            "def f(x: Tensor) -> Tensor:\n  return " + "(" * 5000 + "x" + ")" * 5000 + "\n",
            "def f(x: Tensor) -> Tensor:\n  return " + "-" * 3000 + "x\n",
            "def f(x: Tensor) -> Tensor:\n  return x" + ".a" * 3000 + "\n",
        ],
    )
    def test_what_torch_never_writes(self, text):
        with pytest.raises(MalformedMessage):
            loaded(with_source(text))


def pickled(body):
    return b"\x80\x02" + body + b"."


class TestArchive:
    def with_data(self, content):
        return rewritten(saved(Plain()), lambda name, old: content if name == "data.pkl" else old)

    @pytest.mark.parametrize(
        "data, reason",
        [
            (pickled(b"cos\nsystem\n)R"), "class 'os.system'"),
            (pickled(b"cbuiltins\neval\n)R"), "class 'builtins.eval'"),
            (pickled(b"]" * 500 + b"a" * 499), "levels deep"),
            (pickled(b"]q\x00h\x00a"), "in use"),
            (pickled(b"\x8c\x02os\x8c\x06system\x93"), "SHORT_BINUNICODE"),
            (pickled(b"I5\n"), "INT"),
            (pickled(b"t"), "on nothing"),
            (b"", "not readable"),
            (b"nonsense", "n"),
        ],
    )
    def test_data(self, data, reason):
        with pytest.raises(MalformedMessage, match=re.escape(reason)):
            archive_data.vet_data("data.pkl", data)
        with pytest.raises(MalformedMessage):
            loaded(self.with_data(data))

    def test_a_class_written_in_cpp(self):
        for name in (b"c__torch__.torch.classes.my\nOwn\n", b"c__torch__\ntorch.classes.my.Own\n"):
            with pytest.raises(OperatorNotAllowed, match="written in C"):
                loaded(self.with_data(pickled(name)))

    def test_other_files(self):
        buffer = io.BytesIO(saved(Plain()))
        with zipfile.ZipFile(buffer, "a") as archive_:
            prefix = archive_.namelist()[0].partition("/")[0]
            archive_.writestr(f"{prefix}/model.json", "{}")
        with pytest.raises(MalformedMessage, match=r"model\.json"):
            loaded(buffer.getvalue())

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_two_files_of_a_name(self):
        buffer = io.BytesIO(saved(Plain()))
        with zipfile.ZipFile(buffer, "a") as archive_:
            name = next(name for name in archive_.namelist() if name.endswith("data.pkl"))
            archive_.writestr(name.replace("data.pkl", "DATA.pkl"), "{}")
        with pytest.raises(MalformedMessage):
            loaded(buffer.getvalue())

    @pytest.mark.parametrize(
        "structure", [b"", b"PK\x03\x04", b"PK\x03\x04PTMF" + bytes(100), b"1234PTMF" + bytes(100)]
    )
    def test_no_archive(self, structure):
        with pytest.raises(MalformedMessage):
            loaded(structure)

    def test_every_cut_and_many_flipped_bytes(self):
        structure = saved(Plain())
        generator = torch.Generator().manual_seed(0)
        damaged = [structure[:length] for length in range(0, len(structure), 97)]
        for _ in range(150):
            copy = bytearray(structure)
            for place in torch.randint(len(copy), (3,), generator=generator).tolist():
                copy[place] ^= 1 << (place % 8)
            damaged.append(bytes(copy))
        for each in damaged:
            try:
                loaded(each)
            except SyftError:
                continue


class Everything(nn.Module):
    """Attributes of all kinds, containers, control flow and strings."""

    nothing: Optional[int]  # noqa: UP045

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.LayerNorm(3), nn.ReLU(inplace=True))
        self.more = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
        self.register_buffer("count", torch.zeros(1))
        self.names = ["a", "b"]
        self.nothing = None
        self.pair = (1, float("inf"))
        self.weights = [torch.ones(2)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 2:
            raise ValueError(f"expected 2 dimensions, got {x.dim()}")
        for i, layer in enumerate(self.more):
            x = layer(x) * (i + 1)
        while bool(x.abs().max() > 10):
            x = x / 2
        seen = {name: x[:, i] for i, name in enumerate(self.names)}
        self.count += 1
        nothing = self.nothing
        if nothing is not None:
            x = x + nothing
        return self.net(x) + seen["a"].unsqueeze(1) + self.weights[0].sum()


def layers():
    yield Everything()
    yield nn.LSTM(3, 4, 2)
    yield nn.GRU(3, 4)
    yield nn.TransformerEncoderLayer(8, 2, batch_first=True)
    yield nn.MultiheadAttention(8, 2)
    yield nn.EmbeddingBag(4, 3)
    yield nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2))
    yield nn.Sequential(nn.ConvTranspose2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Upsample(scale_factor=2), nn.LPPool2d(2, 2))
    yield from (nn.CrossEntropyLoss(), nn.NLLLoss(), nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.CTCLoss(), nn.HuberLoss())
    yield from (nn.GELU(), nn.SiLU(), nn.Softmax(1), nn.PReLU(), nn.Hardswish(), nn.AlphaDropout(), nn.GLU(), nn.Mish())


class TestAllowed:
    @pytest.mark.parametrize("model", list(layers()), ids=lambda model: type(model).__name__)
    def test_layers(self, model):
        through(model)

    def test_traced(self):
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        x = torch.randn(2, 1, 8, 8)
        assert torch.equal(through(torch.jit.trace(model, x))(x), torch.jit.trace(model, x)(x))

    def test_result(self):
        model, x = torch.jit.script(Everything().eval()), torch.randn(4, 3)
        assert torch.equal(through(model)(x), model(x))

    def test_functions(self):
        @torch.jit.script
        def loss_fn(pred, target):
            return F.nll_loss(input=pred, target=target) + F.l1_loss(pred, pred)

        through(loss_fn)

    def test_what_the_owner_allows(self):
        more = ["aten::igamma"]
        assert through(Unusual(), more)(torch.ones(1)) > 0.5
        with pytest.raises(OperatorNotAllowed):  # what passed for one owner has not passed for another
            through(Unusual())

    def test_what_passed_is_not_looked_at_again(self, monkeypatch):
        structure, tensors = dump(Plain())
        load(structure, tensors)
        monkeypatch.setattr(vetting, "vet_archive", None)
        load(structure, tensors)

    def test_memory_is_bounded(self):
        memory = vetting.Memory(2)
        for digest in (b"a", b"b", b"c"):
            memory.add((digest, frozenset()), "digest")
        assert [memory.get((digest, frozenset())) for digest in (b"a", b"b", b"c")] == [None, "digest", "digest"]


class TestDigest:
    def test_is_that_of_the_structure(self):
        assert archive.structure_digest(dump(nn.Linear(2, 2))[0]) == archive.structure_digest(dump(nn.Linear(2, 2))[0])
        assert archive.structure_digest(dump(nn.Linear(2, 2))[0]) != archive.structure_digest(dump(nn.ReLU())[0])


class TestBothSides:
    def test_a_worker_refuses_and_goes_on(self):
        server = sy.WebsocketServerWorker(None, "127.0.0.1", 0, id="alice")
        server.start(block=False)
        try:
            proxy = sy.WebsocketClientWorker(None, "127.0.0.1", server.port, id="alice")
            with pytest.raises(OperatorNotAllowed, match="aten::save"):
                sy.local_worker.send(sy.ObjectWrapper(torch.jit.script(Saves()), id=1), proxy)
            assert proxy.objects_count_remote() == 0
            proxy.close()
        finally:
            server.stop()

    def test_a_coordinator_refuses_what_a_worker_returns(self):
        server = sy.WebsocketServerWorker(None, "127.0.0.1", 0, id="alice")
        server.set_obj(sy.ObjectWrapper(torch.jit.script(Saves()), id=1, tags=["#offered"]))
        server.start(block=False)
        try:
            proxy = sy.WebsocketClientWorker(None, "127.0.0.1", server.port, id="alice")
            with pytest.raises(OperatorNotAllowed, match="aten::save"):
                proxy.request_obj(1)
            proxy.close()
        finally:
            server.stop()
