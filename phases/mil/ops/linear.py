"""Matrix products and attention.

Rules: products accumulate in fp32. Attention is one operation: its scores and weights are never
rounded in between, in either arithmetic, because what a device does inside is not documented. But
what the operation hides is measured: see `attention_scores`.

Source: the docstrings of coremltools/converters/mil/mil/ops/defs/iOS15/linear.py and
iOS18/transformers.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.phases.mil.operands import flag, floats_only

Kernel = Callable[..., Tensor | tuple[Tensor, ...]]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, weight [D_out, D_in]."""
    floats_only(x, weight)
    return functional.linear(x, weight, bias)


def _matmul(
    x: Tensor,
    y: Tensor,
    transpose_x: Tensor | None = None,
    transpose_y: Tensor | None = None,
) -> Tensor:
    """Batched product with NumPy's broadcasting; transposing does nothing to a vector."""
    left = x.mT if flag(transpose_x) and x.dim() > 1 else x
    right = y.mT if flag(transpose_y) and y.dim() > 1 else y
    return torch.matmul(left, right)


def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """`query key^T / sqrt(E)`, before any mask: what a device that computes in fp16 must hold."""
    return torch.matmul(query, key.mT) / math.sqrt(query.shape[-1])


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """`softmax(query key^T / sqrt(E) + mask) value`.

    query [B, *, L, E], key [B, *, S, E], value [B, *, S, EV]; a boolean mask says what takes part.
    A row that masks everything is NaN, as the documented formula has it.
    """
    scores = attention_scores(query, key)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value)


ATTENTION = "scaled_dot_product_attention"

OPS: Mapping[str, Kernel] = {
    "linear": _linear,
    "matmul": _matmul,
    ATTENTION: _attention,
}
