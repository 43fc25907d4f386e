"""The ATen operators that a coordinator may have a worker run on remote tensors.

They arrive one by one, as a tensor subclass sees them: torch has taken apart what consists of other
operators, so that a model's log_softmax is `aten::_log_softmax` here. The worker runs them with
gradients on and keeps the graph, so a coordinator can call no kernel of a backward pass itself; it
can only have the worker go back through what was built.

The list is that of models (syft/graph/operators.py), behind the same guards, and the inner
operators below. Beyond the rule there, an operator is refused

- if it gives anything but tensors: numbers are fetched from the worker, which can refuse to show
  them (aten::item, aten::equal, aten::allclose, ...);
- if it is none that torch dispatches to tensor subclasses: the language of models;
- if it changes the shape of its argument (aten::t_, aten::squeeze_): the coordinator's tensor would
  keep the old one;
- if it gives a tensor that shares memory with another, and hides that from autograd: what a
  backward pass needs could be overwritten unnoticed. Its equivalent runs in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from syft.graph import operators
from syft.graph.operators import Operator

_INNER = """
_adaptive_avg_pool2d _adaptive_avg_pool3d _cdist_forward _conj _ctc_loss _embedding_bag
_embedding_bag_forward_only _fft_c2c _fft_c2r _fft_r2c _linalg_check_errors _linalg_det
_linalg_eigh _linalg_slogdet _linalg_solve_ex _linalg_svd _log_softmax _pdist_forward _prelu_kernel
_safe_softmax _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy _trilinear _unique2
_unsafe_view _weight_norm_interface alias diagonal_copy lift_fresh linalg_cholesky_ex
linalg_householder_product linalg_inv_ex linalg_solve_triangular log_sigmoid_forward mvlgamma
multilabel_margin_loss_forward nll_loss2d_forward nll_loss_forward put rrelu_with_noise special_i1
special_log_ndtr
"""
"""Operators that models do not name: what torch takes others apart into."""

_REFUSED = frozenset({"aten::rrelu_with_noise_"})
"""It changes two of its arguments."""

ALLOWED = frozenset(
    {name for name in operators.ALLOWED if name.startswith("aten::")}
    | {f"aten::{name}" for name in _INNER.split()}
)
"""The names without overloads and in-place twins; `resolve` refuses some of their overloads."""

_EQUIVALENTS = {
    "aten::_unsafe_view": "aten::view",
    # That of the list is for those who need no gradients.
    "aten::_embedding_bag_forward_only": "aten::_embedding_bag",
}


def _ctc_loss(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operator without its second result.

    That is for the backward pass, which has it, and is partly memory that was never written.
    """

    def call(*values: Any, **named: Any) -> Any:
        loss, alpha = function(*values, **named)
        return loss, alpha.new_zeros(()).expand(alpha.shape)

    return call


@lru_cache(4096)
def resolve(name: str) -> Operator | None:
    """Return the operator, behind its checks; None if a coordinator may not have it run.

    Args:
        name: its name with its overload, "aten::add.Tensor", or without for the default one.
    """
    base, _, overload = name.partition(".")
    if not is_allowed(base) or not torch._C._dispatch_has_kernel(name):
        return None
    base = _EQUIVALENTS.get(base, base)
    found = operators.resolve(f"{base}.{overload}".rstrip("."))
    if found is None or found.positional is None:
        return None
    schema: Any = torch._C._get_schema(base, overload)
    if not all(str(each.type) in ("Tensor", "List[Tensor]") for each in schema.returns):
        return None
    if torch.Tag.inplace_view in torch._C._get_operation_overload(base, overload)[2]:
        return None
    function = _ctc_loss(found.function) if base == "aten::_ctc_loss" else found.function
    return replace(found, name=name, function=function)


def is_allowed(base: str) -> bool:
    """Return whether an operator, named without its overload, or one out of place is listed."""
    if base in ALLOWED:
        return True
    twin = base.startswith("aten::") and base.endswith("_") and not base.endswith("__")
    return twin and base[:-1] in ALLOWED and base not in _REFUSED


def without_out(name: str) -> str | None:
    """Return the operator that computes what one with `out=` writes.

    For "aten::maximum.out" that is "aten::maximum", for "aten::div.out" "aten::div.Tensor".

    Returns:
        The name of an operator that takes the same arguments but for those; None if there is none.
    """
    base, _, overload = name.partition(".")
    try:
        schema: Any = torch._C._get_schema(base, overload)
    except RuntimeError:
        return None
    wanted = [_described(each) for each in schema.arguments if not each.is_out]
    if len(wanted) == len(schema.arguments):
        return None
    for other in torch._C._jit_get_schemas_for_operator(base):
        if [_described(each) for each in other.arguments] == wanted:
            return f"{base}.{other.overload_name}".rstrip(".")
    return None


def _described(argument: Any) -> tuple[str, str]:
    return argument.name, str(argument.type)
