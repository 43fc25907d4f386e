"""Operators on numbers, texts, lists and dicts: what they give, how far they go, and what they
never show."""

import logging

import pytest
import torch

from syft.graph import scalars
from tests.graph.arriving import arrived, calls, graph, of_inputs

SECRET = torch.tensor([[123.25, 7.5]])


def test_numbers_are_computed_as_torchscript_does():
    for name, arguments, expected in [
        ("aten::add.int", (2, 3), 5),
        ("aten::floordiv.int", (-7, 2), -4),
        ("aten::remainder.int", (-7, 2), 1),
        ("aten::__round_to_zero_floordiv.int", (-7, 2), -3),
        ("aten::pow.int_to_int", (2, 62), 2**62),
        ("aten::__lshift__.int", (1, 3), 8),
        ("aten::__lshift__.int", (1, 63), -(2**63)),
        ("aten::round.float", (2.5,), 2.0),
        ("aten::div.int", (7, 2), 3.5),
        ("prim::min.int", (3, 2), 2),
        ("prim::max.self_int", ([1, 4, 2],), 4),
        ("aten::eq.int_list", ([1, 2], [1, 2]), True),
        ("aten::__contains__.str_list", (["a", "b"], "b"), True),
        ("aten::sorted.int", ([3, 1, 2],), [1, 2, 3]),
        ("aten::__range_length", (0, 10, 3), 4),
        ("aten::__derive_index", (2, 1, 3), 7),
        ("aten::Int.str", ("12",), 12),
        ("aten::factorial.int", (20,), 2432902008176640000),
        ("aten::sqrt.int", (16,), 4.0),
    ]:
        assert repr(calls(name, *arguments)) == repr(expected), name


def test_texts_are_made_as_torchscript_does():
    for name, arguments, expected in [
        ("aten::format", ("{} and {}", 1, [1.5, 2]), "1 and [1.5, 2]"),
        ("aten::format", ("{} {}", 1), "1 {}"),
        ("aten::percentFormat", ("%d%% of %s", 3, "x"), "3% of x"),
        ("aten::join", ("-", ["a", "b"]), "a-b"),
        ("aten::split.str", ("a b", " "), ["a", "b"]),
        ("aten::replace", ("aab", "a", "c"), "ccb"),
        ("aten::upper", ("ab",), "AB"),
        ("aten::strip", (" a ",), "a"),
        ("aten::startswith", ("ab", "a"), True),
        ("aten::find", ("abc", "c"), 2),
        ("aten::add.str", ("a", "b"), "ab"),
        ("aten::str", (3,), "3"),
        ("aten::slice.str", ("abcd", 1, 3), "bc"),
    ]:
        assert calls(name, *arguments) == expected, name


TOO_MUCH = {
    "a sum": ("aten::add.int", (2**63 - 1, 1)),
    "a product": ("aten::mul.int", (2**40, 2**40)),
    "a power": ("aten::pow.int_to_int", (3, 10**9)),
    "a power of a negative number": ("aten::pow.int_to_int", (-2, 64)),
    "a factorial": ("aten::factorial.int", (10**9,)),
    "a floor": ("aten::floor.float", (1e300,)),
    "an integer of a text": ("aten::Int.str", ("9" * 1000,)),
    "a negation": ("aten::neg.int", (-(2**63),)),
    "a sum of texts": ("aten::add.str", ("x" * 40_000, "x" * 40_000)),
    "copies of a list": ("aten::mul.left_t", ([1, 2], 10**6)),
    "copies on the right": ("aten::mul.right_", (10**6, [1, 2])),
    "a joined text": ("aten::join", ("x" * 1000, ["y"] * 1000)),
    "a replaced text": ("aten::replace", ("x" * 60_000, "x", "y" * 1000)),
    "a range": ("prim::rangelist", (10**9,)),
    "many places of a format": ("aten::format", ("{}" * 1000, *["x" * 1000] * 1000)),
    "many places of a percent format": ("aten::percentFormat", ("%s" * 1000, *["x" * 1000] * 1000)),
    "a tensor of nested lists": ("aten::tensor", ([[0] * 1001] * 1000,)),
    "a range without a step": ("aten::__range_length", (0, 10, 0)),
    "a shift to the right by less than nothing": ("aten::__rshift__.int", (1, -1)),
    "a key that is a list": ("prim::DictConstruct", ([1], 2)),
    "an optional value that is not there": ("aten::_unwrap_optional", (None,)),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_is_too_much_raises_an_ordinary_error(name):
    operator, arguments = TOO_MUCH[name]
    with pytest.raises((ArithmeticError, RuntimeError, TypeError, ValueError)):
        calls(operator, *arguments)


def test_a_width_of_many_digits_is_no_width():
    assert calls("aten::percentFormat", "%1000000000d %3d", 7) == "%1000000000d   7"
    assert calls("aten::percentFormat", "%.1000000000f", 7.0) == "%.1000000000f"


def test_a_list_does_not_grow_without_end():
    items = [0] * (scalars.MAX_ITEMS - 1)
    append, extend = scalars.SCALARS["aten::append"], scalars.SCALARS["aten::extend"]
    append(items, 0)
    for function, more in ((append, 0), (extend, [0])):
        with pytest.raises(ValueError, match="1000001 items; the limit is 1000000"):
            function(items[: scalars.MAX_ITEMS], more)


NOTHING_OF_TENSORS = """
eq ne lt sub mul floordiv remainder pow sum sorted index count __contains__ Float Int
"""


def test_what_computes_with_scalars_takes_no_tensors():
    """Torch's own operators do; these would pass by what is checked there."""
    for name in NOTHING_OF_TENSORS.split():
        function = scalars.SCALARS[f"aten::{name}"]
        for arguments in ((SECRET, SECRET), ([SECRET], SECRET), ([[1]], [[1]])):
            with pytest.raises(TypeError):
                function(*arguments[: 1 if name in ("sum", "sorted", "Float", "Int") else 2])
    for name in (
        "prim::ListUnpack",
        "prim::TupleUnpack",
        "prim::TupleIndex",
        "aten::len",
        "aten::__getitem__",
    ):
        with pytest.raises(TypeError, match="looks into a Tensor"):
            scalars.SCALARS[name](SECRET, 0)


def shown(text):
    return any(digits in str(text) for digits in ("123", "7.5"))


def test_a_text_shows_no_values_of_tensors():
    for value in (SECRET, [SECRET], {"a": SECRET}, [{"a": (SECRET,)}]):
        for name, template in (
            ("aten::format", "{}"),
            ("aten::percentFormat", "%s"),
            ("aten::percentFormat", "%r"),
        ):
            text = graph([0, [-1, 0], 1], operators=(name,), constants=(template,), result=2)(value)
            assert "<Tensor (1, 2) torch.float32>" in text and not shown(text)
        assert not shown(of_inputs("aten::str", value))
    for template in ("%d", "%f", "%x", "%c"):
        with pytest.raises(TypeError) as caught:
            graph(
                [0, [-1, 0], 1], operators=("aten::percentFormat",), constants=(template,), result=2
            )(SECRET[0, :1])
        assert not shown(caught.value)


def test_an_error_shows_no_values_of_tensors(caplog):
    with pytest.raises(RuntimeError, match="<Tensor") as caught:
        of_inputs("prim::RaiseException", SECRET)
    assert not shown(caught.value)
    for name in (
        "aten::sum.dim_IntList",
        "aten::view",
        "aten::add.Scalar",
        "aten::format",
        "aten::relu",
        "aten::cat",
    ):
        for inputs in (
            (SECRET, SECRET),
            (SECRET, [SECRET]),
            ([SECRET], SECRET),
            ("{}", SECRET),
            (None, SECRET),
        ):
            names = inputs if name != "aten::relu" else inputs[:1]
            try:
                of_inputs(name, *names)
            except Exception as error:
                assert not shown(error) and not shown(getattr(error, "__notes__", "")), name
    caplog.set_level(logging.INFO)
    of_inputs("prim::Print", SECRET, {"a": SECRET}, "text")
    of_inputs("aten::warn", SECRET)
    assert "text" in caplog.text and not shown([record.getMessage() for record in caplog.records])


def test_an_error_keeps_its_type_and_a_bounded_text():
    for name, error in (
        ("builtins.ValueError", ValueError),
        ("AssertionError", AssertionError),
        ("os.Own", RuntimeError),
    ):
        with pytest.raises(error, match=r"^x{1000}(\n|$)"):
            calls("prim::RaiseException", "x" * 5000, name)
    with pytest.raises(RuntimeError):
        calls("prim::RaiseException", None, 7)


@torch.jit.script
def checked(x: torch.Tensor):
    assert x.size(0) > 0, "%d rows" % x.size(0)  # noqa: UP031
    print("rows:", x.size(0), x)
    return x * 2


def test_a_scripted_assertion_and_a_print(caplog):
    caplog.set_level(logging.INFO, "syft.models")
    model = arrived(checked)
    assert model(SECRET).tolist() == (2 * SECRET).tolist()
    assert caplog.messages == ["rows: 1 <Tensor (1, 2) torch.float32>"]
    with pytest.raises(RuntimeError, match="AssertionError: 0 rows"):
        model(torch.ones(0, 2))


def test_log_lines_are_few_and_each_is_one_line(caplog, monkeypatch):
    monkeypatch.setattr(scalars, "_written", [0.0] * scalars._LINES_PER_SECOND)
    monkeypatch.setattr(scalars.time, "monotonic", lambda: 100.0)
    caplog.set_level(logging.INFO, "syft.models")
    for _ in range(1000):
        calls("prim::Print", "a\nb\x1b[31m" + "c" * 5000)
    assert len(caplog.messages) == scalars._LINES_PER_SECOND
    assert all(message.isprintable() and len(message) < 1100 for message in caplog.messages)
    monkeypatch.setattr(scalars.time, "monotonic", lambda: 101.5)
    calls("aten::warn", "later")
    assert caplog.messages[-1] == "later"


def test_only_lists_and_dicts_are_changed():
    for name, arguments in (
        ("aten::append", ("a", 1)),
        ("aten::extend", ((1,), [1])),
        ("aten::_set_item", ("a", 0, 1)),
    ):
        with pytest.raises((TypeError, AttributeError)):
            scalars.SCALARS[name](*arguments)
    items = {"a": 1}
    scalars.SCALARS["aten::_set_item"](items, "b", 2)
    with pytest.raises(TypeError, match="a key of a dict is a list"):
        scalars.SCALARS["aten::_set_item"](items, [], 2)
    assert items == {"a": 1, "b": 2}


def test_a_negative_power_of_integers_is_a_fraction_as_in_torchscript():
    assert repr(calls("aten::pow.int_to_int", 2, -2)) == "0.25"


def test_a_dict_is_searched_by_its_keys():
    assert scalars.SCALARS["aten::__contains__"]({"a": 1}, "a") is True
    assert scalars.SCALARS["aten::__contains__"]({"a": 1}, 1) is False
    with pytest.raises(TypeError, match="a key of a dict is a Tensor"):
        scalars.SCALARS["aten::__contains__"]({"a": 1}, SECRET)


@pytest.mark.parametrize("dtype", [10_000, -1, "float32", True])
def test_a_tensor_is_made_of_no_dtype_but_those_of_models(dtype):
    with pytest.raises(ValueError, match="a dtype that is not one of those allowed"):
        scalars.SCALARS["aten::tensor"]([1.0], dtype)


@torch.jit.script
def changes_lists(x: torch.Tensor) -> torch.Tensor:
    numbers = [5, 3, 8, 1]
    numbers.insert(1, 7)
    last = numbers.pop()
    first = numbers.pop(0)
    numbers.sort()
    numbers.sort(reverse=True)
    for number in range(3):
        numbers.append(number)
    total = 2.0**-1 + float(2**3) + numbers[0] * 100 + numbers[1] * 10 + last + first
    return x * total + torch.tensor(numbers, dtype=torch.int64).sum()


def test_lists_are_changed_as_torchscript_does():
    x = torch.ones(2)
    assert torch.equal(arrived(changes_lists)(x), changes_lists(x))
    for operator, arguments, expected in (
        ("prim::rangelist", (3,), [0, 1, 2]),
        ("aten::_unwrap_optional", (3,), 3),
        ("aten::pow.float", (4.0, -0.5), 0.5),
        ("aten::pow.int_float", (4, 0.5), 2.0),
    ):
        assert calls(operator, *arguments) == expected, operator
