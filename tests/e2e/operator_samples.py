"""Valid calls for the audit of operators: what neither torch's own samples nor tensors of plain
shapes reach.

One entry an operator, a list of calls; a call is its arguments in the schema's order, the last ones
may be missing. The shape letters: N batch, C channels, T steps, I inputs, H hidden units, E
embedding.
"""

from __future__ import annotations

from typing import Any

import torch

_generator = torch.Generator().manual_seed(0)


def _f(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_generator)


def _i(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def _cells(
    gates: int, biases: bool = True, layers: int = 1, directions: int = 1
) -> list[torch.Tensor]:
    """Return the weights of a recurrent layer with I = 5, H = 6."""
    weights = []
    for layer in range(layers):
        for _ in range(directions):
            weights += [_f(gates * 6, 5 if layer == 0 else 6 * directions), _f(gates * 6, 6)]
            weights += [_f(gates * 6), _f(gates * 6)] if biases else []
    return weights


def _recurrent(gates: int) -> list[tuple[Any, ...]]:
    """Return calls of `input` (T 4, N 3) and of `data` (packed) forms."""

    def state(rows: int = 1, size: int = 3) -> Any:
        return [_f(rows, size, 6), _f(rows, size, 6)] if gates == 4 else _f(rows, size, 6)

    return [
        (_f(4, 3, 5), state(), _cells(gates), True, 1, 0.0, True, False, False),
        (_f(4, 3, 5), state(), _cells(gates), True, 1, 0.0, False, False, False),
        (
            _f(3, 4, 5),
            state(4),
            _cells(gates, layers=2, directions=2),
            True,
            2,
            0.1,
            True,
            True,
            True,
        ),
        (_f(4, 3, 5), state(), _cells(gates, biases=False), False, 1, 0.0, True, False, False),
        (_f(6, 5), _i(3, 2, 1), state(), _cells(gates), True, 1, 0.0, True, False),
        (_f(6, 5), _i(3, 2, 1), state(), _cells(gates), True, 1, 0.0, False, False),
        (_f(6, 5), _i(3, 2, 1), state(2), _cells(gates, directions=2), True, 1, 0.0, True, True),
    ]


def _cell(gates: int) -> list[tuple[Any, ...]]:
    state = [_f(3, 6), _f(3, 6)] if gates == 4 else _f(3, 6)
    return [(_f(3, 5), state, *_cells(gates)), (_f(3, 5), state, *_cells(gates)[:2])]


def _resize(dims: int) -> list[tuple[Any, ...]]:
    """Return calls of two forms.

    They are (input, size, scale, ...) and (input, size, align_corners, scale ...).
    """
    image = _f(2, 3, *([6] * dims))
    modes = {
        1: ["nearest", "linear"],
        2: ["nearest", "bilinear", "bicubic", "area"],
        3: ["nearest", "trilinear"],
    }
    return [
        *((image, 8, None, mode) for mode in modes[dims]),
        *((image, None, 2.0, mode) for mode in modes[dims]),
        *((image, [8] * dims, None, mode) for mode in modes[dims]),
        *((image, None, [2.0] * dims, mode) for mode in modes[dims]),
        (image, None, 2, "nearest"),
    ]


def _vec(dims: int, corners: bool) -> list[tuple[Any, ...]]:
    image = _f(2, 3, *([6] * dims))
    corner = (False,) if corners else ()
    return [
        (image, [8] * dims, *corner, None), (image, None, *corner, [2.0] * dims),
        (image, [8] * dims, *corner), (image, [8] * dims, *corner, *([1.5] * dims)),
    ]  # fmt: skip


def _pool(dims: int) -> list[tuple[Any, ...]]:
    image = _f(2, 3, *([8] * dims))
    return [
        (image, [2] * dims, [2] * dims, [1] * dims),
        (image, [3] * dims, [2] * dims, [1] * dims, [2] * dims),
    ]


_MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])  # N 2, T 4
_LAYER = (_f(24, 8), _f(24), _f(8, 8), _f(8))  # projections of attention with E 8
_CTC = (_f(10, 2, 5).log_softmax(-1), torch.tensor([[1, 2, 3], [2, 4, 1]]))  # T 10, N 2, C 5

SAMPLES: dict[str, list[tuple[Any, ...]]] = {
    "aten::IntImplicit": [(torch.tensor(3),)],
    "aten::_convolution_mode": [(_f(2, 4, 8, 8), _f(6, 2, 3, 3), _f(6), [1, 1], "same", [1, 1], 2)],
    "aten::_native_multi_head_attention": [
        (x := _f(2, 4, 8), x, x, 8, 2, *_LAYER, None, need, True, None) for need in (True, False)
    ]
    + [(x := _f(2, 4, 8), x, x, 8, 2, *_LAYER, ~_MASK, False, True, 1)],
    "aten::_nested_tensor_from_mask": [(_f(2, 4, 8), _MASK, True)],
    "aten::_nested_tensor_from_mask_left_aligned": [(_f(2, 4, 8), _MASK)],
    "aten::_pack_padded_sequence": [
        (_f(4, 3, 5), _i(4, 2, 1), False),
        (_f(3, 4, 5), _i(4, 2, 1), True),
    ],
    "aten::_pad_packed_sequence": [
        (_f(7, 5), _i(3, 2, 1, 1), False, 0.0, 4),
        (_f(7, 5), _i(3, 2, 1, 1), True, 0.0, 6),
        (_f(7, 5), _i(3, 2, 1, 1), False, 0, 0),
    ],
    "aten::_transformer_encoder_layer_fwd": [
        (
            _f(2, 4, 8),
            8,
            2,
            *_LAYER,
            gelu,
            first,
            1e-5,
            _f(8),
            _f(8),
            _f(8),
            _f(8),
            _f(16, 8),
            _f(16),
            _f(8, 16),
            _f(8),
            *mask,
        )
        for gelu, first, mask in ((True, False, ()), (False, True, ()), (True, True, (~_MASK, 1)))
    ],
    "aten::_weight_norm": [(_f(6, 4, 3), _f(6, 1, 1), 0), (_f(6, 4), _f(1, 4), 1)],
    "aten::adaptive_avg_pool1d": [(_f(2, 3, 8), [3])],
    "aten::adaptive_max_pool1d": [(_f(2, 3, 8), [3])],
    "aten::adaptive_avg_pool3d": [(_f(2, 3, 8, 8, 8), [3, 2, 4])],
    "aten::affine_grid_generator": [
        (_f(2, 2, 3), [2, 3, 4, 5], False),
        (_f(2, 3, 4), [2, 3, 4, 5, 6], True),
    ],
    "aten::batch_norm": [
        (_f(3, 50, 4), _f(50), _f(50), _f(50), _f(50).abs(), training, 0.1, 1e-5, False)
        for training in (True, False)
    ]
    + [(_f(3, 50, 4, 4), None, None, None, None, True, 0.1, 1e-5, True)],
    "aten::native_batch_norm": [
        (_f(3, 50, 4), _f(50), _f(50), _f(50), _f(50).abs(), training, 0.1, 1e-5)
        for training in (True, False)
    ]
    + [(_f(3, 50, 4, 4), None, None, None, None, True, 0.1, 1e-5)],
    "aten::instance_norm": [
        (_f(3, 5, 4), _f(5), _f(5), _f(5), _f(5).abs(), use, 0.1, 1e-5, False)
        for use in (True, False)
    ],
    "aten::bilinear": [(_f(3, 4), _f(3, 5), _f(6, 4, 5), _f(6))],
    "aten::conv1d": [
        (_f(2, 4, 8), _f(6, 2, 3), _f(6), [1], [1], [1], 2),
        (_f(2, 4, 8), _f(6, 4, 3), _f(6), [1], "same"),
    ],
    "aten::conv2d": [
        (_f(2, 4, 8, 8), _f(6, 2, 3, 3), _f(6), [1, 1], "same", [1, 1], 2),
        (_f(2, 4, 8, 8), _f(6, 4, 3, 3), _f(6), [2, 1], [1, 0], [1, 2], 1),
    ],
    "aten::conv3d": [(_f(2, 4, 5, 5, 5), _f(6, 4, 3, 3, 3), _f(6), [1] * 3, "valid")],
    "aten::_convolution": [
        (
            _f(2, 4, 8, 8),
            _f(4, 6, 3, 3),
            _f(6),
            [2, 2],
            [1, 1],
            [1, 1],
            True,
            [1, 1],
            1,
            False,
            False,
            True,
            True,
        ),
        (
            _f(2, 4, 8, 8),
            _f(6, 4, 3, 3),
            _f(6),
            [1, 1],
            [1, 1],
            [2, 1],
            False,
            [0, 0],
            1,
            False,
            False,
            True,
            True,
        ),
    ],
    "aten::conv_transpose1d": [(_f(2, 4, 8), _f(4, 3, 3), _f(6), [2], [1], [1], 2, [1])],
    "aten::conv_transpose3d": [
        (_f(2, 4, 5, 5, 5), _f(4, 6, 3, 3, 3), _f(6), [2] * 3, [1] * 3, [1] * 3, 1, [1] * 3)
    ],
    "aten::conv_tbc": [(_f(8, 2, 4), _f(3, 4, 6), _f(6), 1)],
    "aten::cosine_embedding_loss": [(_f(3, 4), _f(3, 4), _f(3).sign(), 0.1, 1)],
    "aten::cross_entropy_loss": [
        (_f(4, 50), _i(0, 3, 49, 7), _f(50).abs(), 1, -100, 0.1),
        (_f(2, 5, 3), torch.ones(2, 3).long(), _f(5), 0, 2, 0.0),
        (_f(4, 5), _f(4, 5).softmax(-1), _f(5), 1),
    ],
    "aten::nll_loss": [
        (_f(4, 50), _i(0, 3, 49, 7), _f(50).abs(), 1, -100),
        (_f(4, 50), _i(0, 3, 49, 7), _f(50), 0),
    ],
    "aten::nll_loss_nd": [
        (_f(4, 50), _i(0, 3, 49, 7), _f(50), 1),
        (_f(2, 5, 3), torch.ones(2, 3).long(), _f(5), 1),
    ],
    "aten::nll_loss2d": [
        (_f(2, 5, 3, 3), torch.ones(2, 3, 3).long(), _f(5), reduction, 2) for reduction in (0, 1, 2)
    ],
    "aten::multi_margin_loss": [
        (_f(4, 5), _i(0, 3, 4, 2), 1, 1.0, _f(5), 1),
        (_f(4, 5), _i(0, 3, 4, 2), 2, 1.0, None, 0),
    ],
    "aten::multilabel_margin_loss": [(_f(2, 4), torch.tensor([[3, 0, -1, 1], [0, -1, 2, 1]]), 1)],
    "aten::ctc_loss": [
        (*_CTC, _i(10, 9), _i(3, 2), 0, 1, False),
        (*_CTC, [10, 9], [3, 2], 0, 1, True),
        (_CTC[0], _i(1, 2, 3, 4, 1), _i(10, 9), _i(3, 2), 0, 0, False),
        (_CTC[0], _i(1, 2, 3, 4, 1), [10, 9], [3, 2]),
    ],
    "aten::einsum": [
        ("ij,jk->ik", [_f(3, 4), _f(4, 5)], None),
        ("bij,bjk->bik", [_f(2, 3, 4), _f(2, 4, 5)], [0, 1]),
    ],
    "aten::embedding": [
        (_f(10, 3), _i(1, 2, 9), 2, True, False),
        (_f(10, 3), _i(1, 2, 9), -1, False, False),
    ],
    "aten::embedding_renorm_": [(_f(10, 3), _i(1, 2, 9), 1.0, 2.0)],
    "aten::embedding_bag": [
        (_f(10, 3), _i(1, 2, 4, 5, 4), _i(0, 3), False, mode, False, weights, last, *pad)
        for mode, weights in ((0, None), (1, None), (2, None), (0, _f(5)))
        for last in (False, True)
        for pad in ((), (4,))
    ],
    "aten::fractional_max_pool2d": [
        (_f(2, 3, 8, 8), [2, 2], [4, 4], torch.rand(2, 3, 2, generator=_generator))
    ],
    "aten::fractional_max_pool3d": [
        (_f(2, 3, 8, 8, 8), [2] * 3, [4] * 3, torch.rand(2, 3, 3, generator=_generator))
    ],
    "aten::frobenius_norm": [(_f(3, 4), [0, 1], False), (_f(3, 4), [1], True)],
    "aten::grid_sampler": [
        (_f(2, 3, 6, 6), torch.rand(2, 4, 4, 2, generator=_generator) * 2 - 1, mode, pad, False)
        for mode in (0, 1, 2)
        for pad in (0, 1, 2)
    ]
    + [(_f(2, 3, 6, 6, 6), _f(2, 4, 4, 4, 3), 0, 0, True)],
    "aten::group_norm": [(_f(2, 6, 4), 3, _f(6), _f(6), 1e-5, True)],
    "aten::native_group_norm": [(_f(2, 6, 4), _f(6), _f(6), 2, 6, 4, 3, 1e-5)],
    "aten::native_layer_norm": [(_f(2, 6, 4), [6, 4], _f(6, 4), _f(6, 4), 1e-5)],
    "aten::gru": _recurrent(3),
    "aten::lstm": _recurrent(4),
    "aten::rnn_tanh": _recurrent(1),
    "aten::rnn_relu": _recurrent(1),
    "aten::gru_cell": _cell(3),
    "aten::lstm_cell": _cell(4),
    "aten::rnn_tanh_cell": _cell(1),
    "aten::rnn_relu_cell": _cell(1),
    "aten::im2col": [(_f(2, 3, 8, 8), [3, 3], [1, 1], [1, 1], [2, 2])],
    "aten::col2im": [(_f(2, 27, 16), [8, 8], [3, 3], [1, 1], [0, 0], [2, 2])],
    "aten::linalg_matrix_norm": [(_f(3, 4), 2.0, [0, 1], False), (_f(3, 4), "nuc", [0, 1], False)],
    "aten::max_pool1d": _pool(1),
    "aten::max_pool1d_with_indices": _pool(1),
    "aten::max_pool2d": _pool(2),
    "aten::max_pool2d_with_indices": _pool(2),
    "aten::max_pool3d": _pool(3),
    "aten::max_pool3d_with_indices": _pool(3),
    "aten::avg_pool1d": _pool(1),
    "aten::avg_pool2d": _pool(2),
    "aten::avg_pool3d": _pool(3),
    "aten::max_unpool2d": [
        (_f(2, 3, 2, 2), torch.tensor([5, 7, 13, 15]).view(2, 2).expand(2, 3, 2, 2).clone(), [4, 4])
    ],
    "aten::max_unpool3d": [
        (
            _f(2, 3, 2, 2, 2),
            torch.arange(8).view(2, 2, 2).expand(2, 3, 2, 2, 2).clone(),
            [4] * 3,
            [2] * 3,
            [0] * 3,
        )
    ],
    "aten::meshgrid": [([_f(3), _f(4)],), ([_f(3), _f(4)], "ij")],
    "aten::norm_except_dim": [(_f(6, 4), 2, 0)],
    "aten::pad_sequence": [([_f(3, 2), _f(5, 2)], True, 0.0, "left")],
    "aten::rms_norm": [(_f(2, 6, 4), [4], _f(4), 1e-5)],
    "aten::scaled_dot_product_attention": [
        (_f(2, 2, 4, 8), _f(2, 2, 5, 8), _f(2, 2, 5, 8), mask, 0.0, causal, None, False)
        for mask, causal in ((None, False), (None, True), (_f(4, 5), False), (_f(4, 5) > 0, False))
    ]
    + [(_f(2, 4, 4, 8), _f(2, 2, 5, 8), _f(2, 2, 5, 8), None, 0.1, False, 0.3, True)],
    "aten::stft": [(_f(2, 100), 16, 4, 16, torch.hann_window(16), False, True, True)],
    "aten::istft": [
        (
            torch.stft(_f(2, 100), 16, 4, return_complex=True, window=torch.ones(16)),
            16,
            4,
            16,
            torch.ones(16),
        )
    ],
    "aten::to_padded_tensor": [],
    "aten::triplet_margin_loss": [(_f(3, 4), _f(3, 4), _f(3, 4))],
    "aten::__interpolate": _resize(1) + _resize(2) + _resize(3),
    "aten::__upsample": _resize(1) + _resize(2),
    "aten::__upsample_bilinear": [call[:3] for call in _resize(2)],
    "aten::__upsample_nearest": [call[:3] for call in _resize(1) + _resize(2)],
    "aten::_upsample_bicubic2d_aa": _vec(2, True),
    "aten::_upsample_bilinear2d_aa": _vec(2, True),
    "aten::_upsample_lanczos2d_aa": _vec(2, True),
    "aten::_upsample_nearest_exact1d": _vec(1, False),
    "aten::_upsample_nearest_exact2d": _vec(2, False),
    "aten::_upsample_nearest_exact3d": _vec(3, False),
    "aten::upsample_nearest1d": _vec(1, False),
    "aten::upsample_nearest2d": _vec(2, False),
    "aten::upsample_nearest3d": _vec(3, False),
    "aten::upsample_linear1d": _vec(1, True),
    "aten::upsample_bilinear2d": _vec(2, True),
    "aten::upsample_bicubic2d": _vec(2, True),
    "aten::upsample_trilinear3d": _vec(3, True),
    "aten::index_put": [
        (_f(6, 4), [_i(0, 5), _i(1, 3)], _f(2), False),
        (_f(6, 4), [None, _i(1, 3)], _f(6, 2), True),
    ],
    "aten::index_put_": [
        (_f(6, 4), [_i(0, 5), _i(1, 3)], _f(2), False),
        (_f(6, 4), [_i(0, 5)], _f(2, 4), True),
    ],
    "aten::index": [
        (_f(6, 4), [_i(0, 5), _i(1, 3)]),
        (_f(6, 4), [None, _i(1, 3)]),
        (_f(6, 4), [_f(6, 4) > 0]),
    ],
    "aten::histc": [(_f(100), 10, 0, 0), (_f(100), 10, -1, 1)],
    "aten::bincount": [(_i(1, 2, 5), _f(3).abs(), 0), (_i(1, 2, 5), None, 3)],
    "aten::searchsorted": [
        (
            _f(2, 5).sort().values,
            _f(2, 3),
            False,
            True,
            None,
            torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]),
        ),
        (_f(5).sort().values, _f(3), True, False, "left", None),
        (_f(5).sort().values, 0.5, False, False, None, None),
    ],
    "aten::bucketize": [(_f(3, 4), _f(5).sort().values, False, True), (0.3, _f(5).sort().values)],
    "aten::take": [(_f(3, 4), _i(0, 11, -1))],
    "aten::scatter": [
        (_f(3, 5), 1, torch.tensor([[0, 4], [1, 2]]), _f(2, 2)),
        (_f(3, 5), 0, torch.tensor([[0, 2]]), 1.0),
        (_f(3, 5), 0, torch.tensor([[0, 2]]), 1.0, "add"),
        (_f(3, 5), 1, torch.tensor([[0, 4], [1, 2]]), _f(2, 2), "multiply"),
    ],
    "aten::one_hot": [(_i(0, 4, 2), 5), (_i(0, 4, 2), -1)],
    "aten::multinomial": [(_f(3, 5).abs(), 4, False, None), (_f(5).abs(), 9, True, None)],
    "aten::native_dropout": [(_f(3, 4), 0.5, True)],
    "aten::prelu": [(_f(2, 5, 4), _f(5))],
    "aten::repeat_interleave": [
        (_f(4, 3), _i(1, 0, 2, 3), 0, None),
        (_f(4, 3), 3, 1, None),
        (_i(1, 0, 2, 3), None),
    ],
    "aten::where": [(_f(3, 4) > 0, _f(3, 4), _f(3, 4))],
    "aten::binomial": [(torch.full((3, 4), 9.0), torch.rand(3, 4, generator=_generator))],
    "aten::poisson": [(_f(3, 4).abs(),)],
    "aten::random_": [(_f(3, 4), 0, 9, None)],
    "aten::randint_like": [(_f(3, 4), torch.tensor(9)), (_f(3, 4), torch.tensor(9), None)],
    "aten::kl_div": [(_f(3, 4), _f(3, 4).softmax(-1), 1, False)],
    "aten::gcd": [(_i(4, 6), _i(6, 9))],
    "aten::cdist": [(_f(3, 4), _f(5, 4), 2.0, None), (_f(3, 4), _f(5, 4), 1.5, 2)],
    "aten::linalg_lstsq": [(_f(5, 3), _f(5, 2), None), (_f(5, 3), _f(5, 2), None, "gelsd")],
    "aten::cholesky_inverse": [(torch.eye(4), False)],
    "aten::cholesky_solve": [(_f(4, 2), torch.eye(4), False)],
    "aten::channel_shuffle": [(_f(2, 6, 4, 4), 3)],
    "aten::native_channel_shuffle": [(_f(2, 6, 4, 4), 3)],
    "aten::pixel_shuffle": [(_f(2, 12, 4, 4), 2)],
    "aten::block_diag": [([_f(2, 3), _f(4, 5)],)],
    "aten::chain_matmul": [([_f(2, 3), _f(3, 5), _f(5, 4)],)],
    "aten::linalg_multi_dot": [([_f(2, 3), _f(3, 5), _f(5, 4)],)],
    "aten::split_with_sizes": [(_f(6, 4), [2, 1, 3], 0)],
    "aten::unsafe_split_with_sizes": [(_f(6, 4), [2, 1, 3], 0)],
    "aten::cartesian_prod": [([_f(3), _f(4)],)],
    "aten::tensordot": [(_f(3, 4), _f(4, 5), [1], [0])],
    "aten::kaiser_window": [(16, True), (16, True, 12.0)],
    "aten::view": [(_f(3, 4), [2, 6]), (_f(3, 4), torch.int32)],
    "aten::unflatten": [(_f(6, 4), 0, [2, 3])],
    "aten::broadcast_shapes": [([[3, 1], [1, 4]],)],
    "aten::renorm": [(_f(3, 4), 2, 0, 1.0)],
    "aten::clamp": [(_f(3, 4), -0.5, 0.5), (_f(3, 4), _f(4), _f(3, 1))],
    "aten::clip": [(_f(3, 4), -0.5, 0.5), (_f(3, 4), _f(4), _f(3, 1))],
    "aten::pad": [
        (_f(2, 3, 6), [1, 2], mode, None)
        for mode in ("constant", "reflect", "replicate", "circular")
    ]
    + [
        (_f(2, 3, 6, 6), [1, 2, 0, 1], "reflect", None),
        (_f(2, 3, 6, 6), [1, 2, -1, 1], "constant", 0.5),
    ],
    "aten::quantile": [
        (_f(3, 4), torch.tensor([0.2, 0.7]), 1, True, "linear"),
        (_f(3, 4), torch.tensor(0.5), None),
    ],
    "aten::reflection_pad1d": [(_f(2, 3, 6), [1, 2])],
    "aten::reflection_pad2d": [(_f(2, 3, 6, 6), [1, 2, 3, 0])],
    "aten::reflection_pad3d": [(_f(2, 3, 4, 4, 4), [1, 2, 3, 0, 1, 1])],
    "aten::replication_pad1d": [(_f(2, 3, 6), [1, 2])],
    "aten::replication_pad2d": [(_f(2, 3, 6, 6), [1, 2, 3, 0])],
    "aten::replication_pad3d": [(_f(2, 3, 4, 4, 4), [1, 2, 3, 0, 1, 1])],
    "aten::moveaxis": [(_f(2, 3, 4), [0, 1], [1, 2])],
    "aten::movedim": [(_f(2, 3, 4), [0, 1], [1, 2])],
    "aten::linalg_norm": [
        (_f(3, 4), "nuc", None, False),
        (_f(3, 4), 2, [0, 1], False),
        (_f(3, 4), "fro", [0, 1], True),
    ],
    "aten::norm": [(_f(3, 4), 2, [0], True, torch.float64), (_f(3, 4), 1.5, [1], False)],
    "aten::float_power": [(_f(3, 4).double(), 2.0), (_f(3, 4).double(), _f(4).double())],
    "aten::squeeze": [(_f(3, 1, 4, 1), [1, 3])],
    "aten::special_logsumexp": [(_f(3, 4), [0], True)],
    "aten::index_reduce": [
        (_f(5, 3), 0, _i(0, 4), _f(2, 3), reduce, False)
        for reduce in ("prod", "mean", "amax", "amin")
    ],
    "aten::scatter_reduce": [
        (_f(3, 5), 1, torch.tensor([[0, 4], [1, 2]]), _f(2, 2), reduce, True)
        for reduce in ("sum", "prod", "mean", "amax")
    ],
}
"""The calls, by operator."""

for _inner, _calls in {
    "aten::_ctc_loss": [
        (_CTC[0], targets, lengths, sizes, 0, False)
        for targets in (_CTC[1], _i(1, 2, 3, 4, 1))
        for lengths, sizes in (([10, 9], [3, 2]), (_i(10, 9), _i(3, 2)))
    ],
    "aten::_embedding_bag": SAMPLES["aten::embedding_bag"],
    "aten::_embedding_bag_forward_only": SAMPLES["aten::embedding_bag"],
    "aten::_weight_norm_interface": SAMPLES["aten::_weight_norm"],
    "aten::rrelu_with_noise": [
        (_f(3, 4), _f(3, 4), 0.1, 0.3, training) for training in (True, False)
    ],
}.items():
    SAMPLES[_inner] = _calls
