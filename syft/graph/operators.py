"""The TorchScript operators that models and loss functions may use.

A worker's owner may allow more.

The rule: an operator is on the list if it computes its result from its arguments and from torch's
generator alone, and changes nothing but its arguments. Not on the list, and why:

- what reads or writes files, processes, devices or the network: aten::save, aten::from_file,
  prim::rpc_*, c10d::*, cuda::*, profiler::*, ...
- what runs beside the model: prim::fork, aten::wait (no limit would reach it);
- what shows memory that was never written, which may hold another coordinator's data:
  aten::resize_, ...; aten::empty and its like are allowed, and give zeros;
- what looks behind a tensor: aten::set_, aten::data, aten::as_strided, aten::record_stream, ...
- what changes a setting of the process: aten::manual_seed, aten::set_grad_enabled, ...
- what calls code that is not in the graph: prim::PythonOp, every namespace but aten and prim,
  classes written in C++;
- what makes tensors of other kinds than numbers in rows: sparse, nested and quantized ones trust
  their indices.

The list is explicit, so an operator of a later torch is refused until somebody has looked at it. It
gets on the list when it fits the rule and the audit (tests/e2e/audit_operators.py) finds nothing:
it calls the operator with hostile arguments, since many kernels trust theirs. What it finds is
refused by a guard (guards.py) or, where a result is too large, by a formula (sizes.py); what cannot
be told beforehand is not allowed. With each new torch, the audit runs again over the whole list.

The in-place twin of an operator (aten::relu_ of aten::relu) is allowed with it. aten::warn and
prim::Print write to the worker's log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from syft.graph import kinds
from syft.graph.formulas import BY_SHAPE, BY_VALUES
from syft.graph.guards import GUARDS, guarded
from syft.graph.inner_formulas import INNER_BY_SHAPE, INNER_BY_VALUES
from syft.graph.inner_guards import INNER_GUARDS
from syft.graph.scalars import SCALARS
from syft.graph.views import bounded
from syft.graph.writes import counted

GUARDS.update(INNER_GUARDS)
BY_SHAPE.update(INNER_BY_SHAPE)
BY_VALUES.update(INNER_BY_VALUES)

_ARITHMETIC = """
abs absolute acos acosh add addcdiv addcmul angle arccos arccosh arcsin arcsinh arctan arctan2
arctanh asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp
clamp_max clamp_min clip complex conj copysign cos cosh deg2rad degrees digamma div divide divmod
erf erfc erfinv exp exp2 expm1 fabs factorial fix float_power floor floor_divide floordiv fmax
fmin fmod frac frexp gamma gcd heaviside hypot i0 imag lcm ldexp lerp lgamma log log10 log1p log2
logaddexp logaddexp2 logit mathremainder maximum minimum modf mul multiply nan_to_num neg negative
nextafter polar polygamma positive pow rad2deg radians real reciprocal remainder round rsqrt rsub
sgn sigmoid sign signbit sin sinc sinh special_digamma special_entr special_erf special_erfc
special_erfinv special_exp2 special_expit special_expm1 special_gammaln special_i0 special_log1p
special_log_softmax special_logit special_logsumexp special_ndtr special_psi special_round
special_sinc special_softmax special_xlog1py special_xlogy sqrt square sub subtract tan tanh
true_divide trunc xlogy __and__ __iand__ __ior__ __ixor__ __lshift__ __or__
__round_to_zero_floordiv __rshift__ __xor__
"""

_COMPARISON = """
allclose eq equal ge greater greater_equal gt isclose isfinite isin isinf isnan isneginf isposinf
isreal le less less_equal logical_and logical_not logical_or logical_xor lt ne not_equal where
__is__ __isnot__ __not__ is_nonzero
"""

_REDUCTION = """
all amax amin aminmax any argmax argmin bincount bucketize count_nonzero cummax cummin cumprod
cumsum diff histc kthvalue logcumsumexp logsumexp max mean median min mode msort nanmean nanmedian
nansum norm prod quantile searchsorted sort std std_mean sum topk trace var var_mean argsort cov
corrcoef dist renorm frobenius_norm linalg_vector_norm linalg_norm linalg_matrix_norm
"""

_SHAPE = """
adjoint atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cat
channel_shuffle chunk clone column_stack concat concatenate constant_pad_nd contiguous copy_
detach diag diag_embed diagflat diagonal dsplit dstack expand expand_as fill fill_ fill_diagonal_
flatten flip fliplr flipud hsplit hstack mH mT matrix_H meshgrid moveaxis movedim narrow numpy_T
one_hot pad pad_sequence permute pixel_shuffle pixel_unshuffle ravel repeat repeat_interleave
reshape reshape_as roll rot90 row_stack select slice split split_with_sizes squeeze stack swapaxes
swapdims t tensor_split tile transpose tril tril_indices triu triu_indices type_as unbind
unflatten unfold unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze view view_as
view_as_complex view_as_real vsplit vstack zero_ to cpu combinations cartesian_prod
native_channel_shuffle
"""

_INDEX = """
gather index index_add index_copy index_fill index_put index_put_ index_select masked_fill
masked_scatter masked_select nonzero nonzero_numpy scatter scatter_add scatter_reduce
select_scatter slice_scatter diagonal_scatter take take_along_dim argwhere unique_consecutive
unique_dim index_reduce
"""

_LINEAR_ALGEBRA = """
addbmm addmm addmv addr baddbmm bmm cdist chain_matmul cholesky_inverse cholesky_solve cross det
dot einsum ger inner inverse kron linalg_cholesky linalg_cross linalg_det linalg_eigh linalg_inv
linalg_lstsq linalg_matmul linalg_matrix_exp linalg_matrix_power linalg_multi_dot linalg_pinv
linalg_qr linalg_slogdet linalg_solve linalg_svd linalg_svdvals linalg_vecdot logdet matmul
matrix_exp matrix_power mm mv outer pairwise_distance pdist pinverse slogdet svd tensordot vdot
cosine_similarity fft_fft fft_fft2 fft_fftn fft_fftshift fft_ifft fft_ifft2 fft_ifftn
fft_ifftshift fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn stft istft
cumulative_trapezoid trapezoid trapz
"""

_LAYERS = """
_convolution _convolution_mode _native_multi_head_attention _pack_padded_sequence
_pad_packed_sequence _transformer_encoder_layer_fwd _upsample_bicubic2d_aa _upsample_bilinear2d_aa
_upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
_upsample_nearest_exact3d _weight_norm __interpolate __upsample __upsample_bilinear
__upsample_nearest adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator alpha_dropout avg_pool1d avg_pool2d
avg_pool3d batch_norm bilinear celu col2im conv1d conv2d conv3d conv_tbc conv_transpose1d
conv_transpose2d conv_transpose3d convolution dropout elu embedding embedding_bag
embedding_renorm_ feature_alpha_dropout feature_dropout fractional_max_pool2d
fractional_max_pool3d gelu glu grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru
gru_cell hardshrink hardsigmoid hardswish hardtanh im2col instance_norm layer_norm leaky_relu
linear log_sigmoid log_softmax lstm lstm_cell max_pool1d max_pool1d_with_indices max_pool2d
max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d mish
native_batch_norm native_dropout native_group_norm native_layer_norm norm_except_dim prelu
reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 replication_pad1d replication_pad2d
replication_pad3d rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell rrelu
scaled_dot_product_attention selu silu softmax softplus softshrink threshold upsample_bicubic2d
upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
upsample_trilinear3d
"""

_LOSSES = """
binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy_loss
ctc_loss hinge_embedding_loss huber_loss kl_div l1_loss margin_ranking_loss mse_loss
multi_margin_loss multilabel_margin_loss nll_loss nll_loss2d nll_loss_nd poisson_nll_loss
smooth_l1_loss soft_margin_loss triplet_margin_loss
"""

_NEW_TENSORS = """
arange as_tensor bernoulli binomial empty empty_like eye full full_like linspace logspace
multinomial new_empty new_full new_ones new_zeros normal normal_ exponential_ geometric_
log_normal_ cauchy_ uniform_ random_ ones ones_like poisson rand rand_like randint randint_like
randn randn_like randperm scalar_tensor tensor zeros zeros_like hann_window hamming_window
kaiser_window
"""

_QUERIES = """
dim element_size get_device is_autocast_cpu_enabled is_autocast_enabled is_complex is_contiguous
is_floating_point is_grad_enabled is_same_size is_scripting is_signed numel result_type size
stride item
"""

_LANGUAGE = """
Bool Complex Delete Float FloatImplicit Int IntImplicit ScalarImplicit __contains__ __derive_index
__getitem__ __range_length _set_item _unwrap_optional append clear copy endswith extend find
format get index insert items join keys len list lower percentFormat pop remove replace reverse
sorted split startswith str strip upper values warn
"""

_PRIMITIVES = """
DictConstruct GetAttr If ListConstruct ListUnpack Loop NumToTensor Print RaiseException SetAttr
TupleConstruct TupleIndex TupleUnpack Uninitialized abs device dtype is_cpu is_cuda is_mps
is_nested is_quantized is_sparse layout max min rangelist requires_grad type unchecked_cast
unchecked_unwrap_optional
"""

_AT = (
    _ARITHMETIC, _COMPARISON, _REDUCTION, _SHAPE, _INDEX, _LINEAR_ALGEBRA, _LAYERS, _LOSSES,
    _NEW_TENSORS, _QUERIES, _LANGUAGE,
)  # fmt: skip

ALLOWED = frozenset(
    [f"aten::{name}" for group in _AT for name in group.split()]
    + [f"prim::{name}" for name in _PRIMITIVES.split()]
)
"""The names of all allowed operators, without the in-place twins."""


def is_allowed(operator: str, allow_operators: Container[str] = ()) -> bool:
    """Return whether a model may use an operator.

    Args:
      operator: its name, for example "aten::relu_".
      allow_operators: names that the owner allows.
    """
    if operator in ALLOWED or operator in allow_operators:
        return True
    twin = operator.startswith("aten::") and operator.endswith("_") and not operator.endswith("__")
    return twin and operator[:-1] in ALLOWED


_WORD = re.compile(r"\w+")
_TYPE_VARIABLES = frozenset({"t", "t1", "t2", "tVal", "Any"})
_PLAIN_TYPE_NAMES = """
Tensor int bool float number complex str Optional List Tuple Device Generator
"""
_PLAIN_TYPES = frozenset(_PLAIN_TYPE_NAMES.split())
"""Types of arguments and results. A graph can make no generator, so only None is passed for one."""


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator, ready to be called.

    Attributes:
      name: its name with its overload, for example "aten::add.Tensor".
      function: what computes it.
      required: how many arguments it needs.
      positional: how many are passed by position; None: any number.
      keywords: names of those after them, which are passed by name.
      writes: index of the argument that it changes, or None.
      shares: indices of the arguments whose memory its result may share; None: any of them.
    """

    name: str
    function: Callable[..., Any]
    required: int = 0
    positional: int | None = None
    keywords: tuple[str, ...] = ()
    writes: int | None = None
    shares: tuple[int, ...] | None = None


_UNWRITTEN = frozenset({"aten::empty", "aten::empty_like", "aten::new_empty"})

_SAFE_EQUIVALENTS = {
    "aten::unsafe_chunk": "aten::chunk",
    "aten::unsafe_split": "aten::split",
    "aten::unsafe_split_with_sizes": "aten::split_with_sizes",
}
"""The unsafe ones hide from autograd that their results share memory: saved indices could be
overwritten."""

_REFUSED_NAMES = """
aten::values aten::mm.dtype aten::bmm.dtype aten::addmm.dtype aten::baddbmm.dtype
aten::einsum.sublist
"""
_REFUSED = frozenset(_REFUSED_NAMES.split())
"""Overloads that are not allowed, though others of their name are: for sparse tensors, for GPUs,
not to be checked."""

_NO_FAST_PATH = "Trace the model after torch.backends.mha.set_fastpath_enabled(False)."
ADVICE = {
    "aten::_nested_tensor_from_mask": _NO_FAST_PATH,
    "aten::_nested_tensor_from_mask_left_aligned": _NO_FAST_PATH,
    "aten::to_padded_tensor": _NO_FAST_PATH,
}
"""How to do without an operator that is not allowed."""


def _zeroed(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *arguments, **named: function(*arguments, **named).zero_()


@lru_cache(4096)
def resolve(name: str) -> Operator | None:
    """Return the operator of this name and overload, or None.

    It is None if this torch has none that a graph may call.

    Where the schema has a tensor, the operator is torch's own behind its guards; else it is a
    function of scalars.py.
    """
    if name in _REFUSED:
        return None
    base, _, overload = name.partition(".")
    base = _SAFE_EQUIVALENTS.get(base, base)
    try:
        schema: Any = torch._C._get_schema(base, overload)
        types = [str(each.type) for each in (*schema.arguments, *schema.returns)]
    except RuntimeError:
        schema, types = None, []
    words = {word for each in types for word in _WORD.findall(each)}
    # Operators on plain values are never torch's own: those check little, and their results have no
    # bounds.
    if "Tensor" not in words or words & _TYPE_VARIABLES:
        function = (
            SCALARS.get(base)
            if schema is not None or (name.startswith("prim::") and not overload)
            else None
        )
        return None if function is None else Operator(name, function)
    if not words <= _PLAIN_TYPES or any(each.is_out for each in schema.arguments):
        return None
    namespace, _, short = base.partition("::")
    operation = getattr(getattr(getattr(torch.ops, namespace), short), overload or "default")
    function = bounded(name, schema, counted(schema, guarded(name, schema, operation)))
    # What such memory holds may be another coordinator's data.
    if base in _UNWRITTEN:
        function = _zeroed(function)
    by_name = tuple(each.name for each in schema.arguments if each.kwarg_only)
    required = sum(not each.has_default_value() for each in schema.arguments)
    shared = tuple(index for index, each in enumerate(schema.arguments) if each.alias_info)
    changed = [index for index in shared if schema.arguments[index].alias_info.is_write]
    if any(str(schema.arguments[index].type) != "Tensor" for index in changed):
        return None  # it would change a copy of the list that it is given
    function = kinds.checked(name, schema.arguments, function)
    positional = len(schema.arguments) - len(by_name)
    return Operator(
        name, function, required, positional, by_name, changed[0] if changed else None, shared
    )
