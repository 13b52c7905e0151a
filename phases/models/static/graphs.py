"""Static GQA decoders: a checkpoint's weights in graphs with no dynamic shape. For export only.

Rules, each because the other way failed to convert to Core ML or broke its numbers:

- every size is an int from the architecture, never `x.shape` (a symbolic size becomes dynamic ops);
- key and value heads are repeated by hand (`enable_gqa` has no Core ML form), and the fused
  attention is called without `scale=` (with it the fused op is not used);
- RMSNorm is written so that no intermediate leaves the range of fp16 (see `rms_norm`);
- the causal mask and the rotary tables are constants;
- arithmetic is fp32 here and becomes fp16 in the conversion. Only the edges are fp16 already, as
  the contract promises: outputs and state. `compute` is the graph without those edges.

A checkpoint's weights come under their Hugging Face names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.schemas.contract import Architecture
from stillhouse.schemas.errors import PhaseError

MASKED = -1e4
"""Added to the score of a token that must not be seen. Its weight is then exactly 0 in fp32 and in
fp16, and unlike -inf it cannot make a NaN."""

Caches = tuple[Tensor, Tensor]
"""Keys and values, each [layer, key-value head, token, head size]."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x²) + eps) * weight` over the last axis, safe in fp16.

    Trained models reach |x| of tens of thousands, so x² leaves fp16 (65504). For any s > 0

        x / sqrt(mean(x²) + eps)  =  x · rsqrt(mean((x/s)²) + (√eps/s)²) / s

    holds exactly; with s = max(max|x|, √eps) every intermediate is at most max(|x|, √n, 1/√eps).
    """
    # A tensor, not a number: a number over a tensor exports as `reciprocal`, which Core ML computes
    # as 1 / (x + 1e-4) by default, and a clamp's open upper end becomes an infinite constant.
    root = x.new_full((1,), math.sqrt(eps))
    scale = torch.maximum(x.abs().amax(dim=-1, keepdim=True), root)
    small = x / scale
    floor = root / scale
    inverse = torch.rsqrt((small * small).mean(dim=-1, keepdim=True) + floor * floor) / scale
    return x * inverse * weight


def rotary_tables(architecture: Architecture, length: int) -> Caches:
    """Cosines and sines of rotary embedding (Su et al. 2021), each [length, head size].

    Paired as in Llama: dimension i turns with dimension i + head size / 2.
    """
    half = torch.arange(0, architecture.head_dim, 2, dtype=torch.int64).float()
    frequency = 1.0 / (architecture.rope_theta ** (half / architecture.head_dim))
    angle = torch.outer(torch.arange(length).float(), frequency)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def expected_weights(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of this architecture has."""
    a = architecture
    query, key_value = a.num_attention_heads * a.head_dim, a.num_key_value_heads * a.head_dim
    block = {
        "input_layernorm.weight": (a.hidden_size,),
        "post_attention_layernorm.weight": (a.hidden_size,),
        "self_attn.q_proj.weight": (query, a.hidden_size),
        "self_attn.k_proj.weight": (key_value, a.hidden_size),
        "self_attn.v_proj.weight": (key_value, a.hidden_size),
        "self_attn.o_proj.weight": (a.hidden_size, query),
        "mlp.gate_proj.weight": (a.intermediate_size, a.hidden_size),
        "mlp.up_proj.weight": (a.intermediate_size, a.hidden_size),
        "mlp.down_proj.weight": (a.hidden_size, a.intermediate_size),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (a.vocab_size, a.hidden_size),
        "model.norm.weight": (a.hidden_size,),
    }
    if not a.tie_word_embeddings:
        shapes["lm_head.weight"] = (a.vocab_size, a.hidden_size)
    for layer in range(a.num_hidden_layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def check_weights(architecture: Architecture, weights: Mapping[str, Tensor]) -> None:
    """Raise PhaseError unless every expected tensor is there, of its shape, and finite."""
    for name, shape in expected_weights(architecture).items():
        found = weights.get(name)
        if found is None or tuple(found.shape) != shape:
            has = "is missing" if found is None else f"has shape {list(found.shape)}"
            raise PhaseError(
                f"The checkpoint's tensor {name} {has}; its config asks for {list(shape)}.",
                remedy="Publish a checkpoint whose config.json describes its tensors.",
                code="export.checkpoint_shape",
            )
        if not bool(torch.isfinite(found).all()):
            raise PhaseError(
                f"The checkpoint's tensor {name} holds NaN or infinity.",
                remedy="Train again with a lower learning rate, or publish a sound checkpoint.",
                code="export.checkpoint_nonfinite",
            )


def _constant(tensor: Tensor) -> nn.Parameter:
    """Freeze a weight; it shares the tensor's memory when that is fp32 already."""
    return nn.Parameter(tensor.detach().float().contiguous(), requires_grad=False)


class _Block(nn.Module):
    """One transformer layer over `length` new tokens."""

    def __init__(self, a: Architecture, weights: Mapping[str, Tensor], layer: int) -> None:
        super().__init__()
        self.heads, self.key_value_heads = a.num_attention_heads, a.num_key_value_heads
        self.groups, self.head = a.num_attention_heads // a.num_key_value_heads, a.head_dim
        self.eps = a.rms_norm_eps

        def weight(name: str) -> nn.Parameter:
            return _constant(weights[f"model.layers.{layer}.{name}.weight"])

        self.norm_attention = weight("input_layernorm")
        self.norm_mlp = weight("post_attention_layernorm")
        self.query, self.key = weight("self_attn.q_proj"), weight("self_attn.k_proj")
        self.value, self.out = weight("self_attn.v_proj"), weight("self_attn.o_proj")
        self.gate, self.up = weight("mlp.gate_proj"), weight("mlp.up_proj")
        self.down = weight("mlp.down_proj")

    def project(self, x: Tensor, turn: Caches, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [1, H, length, D], rotated keys and values [1, Hkv, length, D]."""
        y = rms_norm(x, self.norm_attention, self.eps)
        q, k, v = (
            functional.linear(y, w).view(1, length, heads, self.head).transpose(1, 2)
            for w, heads in (
                (self.query, self.heads),
                (self.key, self.key_value_heads),
                (self.value, self.key_value_heads),
            )
        )
        return _rotate(q, turn, self.head), _rotate(k, turn, self.head), v

    def mix(self, x: Tensor, q: Tensor, kv: Caches, mask: Tensor, length: int) -> Tensor:
        """Attention of `q` over `kv` [1, Hkv, seen, D], then the MLP; [1, length, hidden]."""
        seen = mask.shape[-1]
        k, v = (
            c.unsqueeze(2)
            .expand(1, self.key_value_heads, self.groups, seen, self.head)
            .reshape(1, self.heads, seen, self.head)
            for c in kv
        )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        joined = attended.transpose(1, 2).reshape(1, length, self.heads * self.head)
        x = x + functional.linear(joined, self.out)
        y = rms_norm(x, self.norm_mlp, self.eps)
        return x + functional.linear(
            functional.silu(functional.linear(y, self.gate)) * functional.linear(y, self.up),
            self.down,
        )


def _rotate(x: Tensor, turn: Caches, head: int) -> Tensor:
    first, second = x[..., : head // 2], x[..., head // 2 :]
    return x * turn[0] + torch.cat((-second, first), dim=-1) * turn[1]


class _Decoder(nn.Module):
    """What both graphs hold: the weights and the rotary tables."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self, architecture: Architecture, weights: Mapping[str, Tensor], length: int
    ) -> None:
        super().__init__()
        check_weights(architecture, weights)
        self.architecture, self.length = architecture, length
        self.embedding = _constant(weights["model.embed_tokens.weight"])
        self.blocks = nn.ModuleList(
            _Block(architecture, weights, layer) for layer in range(architecture.num_hidden_layers)
        )
        self.norm = _constant(weights["model.norm.weight"])
        tied = architecture.tie_word_embeddings
        self.head = None if tied else _constant(weights["lm_head.weight"])
        cos, sin = rotary_tables(architecture, length)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def logits(self, x: Tensor) -> Tensor:
        """Scores of the vocabulary, [1, length, V]."""
        head = self.embedding if self.head is None else self.head
        return functional.linear(rms_norm(x, self.norm, self.architecture.rms_norm_eps), head)


class StaticPrefill(_Decoder):
    """`input_ids` [1, T] int32 → logits [1, T, V], keys and values [L, Hkv, T, D]."""

    mask: Tensor

    def __init__(
        self, architecture: Architecture, weights: Mapping[str, Tensor], length: int
    ) -> None:
        """Carry `weights` in a graph for exactly `length` tokens.

        Raises PhaseError when the weights are not those of the architecture, or not finite.
        """
        super().__init__(architecture, weights, length)
        self.register_buffer("mask", torch.full((1, 1, length, length), MASKED).triu(1))

    def compute(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute in fp32, without the rounding of the outputs."""
        x = functional.embedding(input_ids, self.embedding)
        keys, values = [], []
        for block in self.blocks:
            assert isinstance(block, _Block)  # noqa: S101  # nn.ModuleList forgets its type
            q, k, v = block.project(x, (self.cos, self.sin), self.length)
            x = block.mix(x, q, (k, v), self.mask, self.length)
            keys.append(k)
            values.append(v)
        return self.logits(x), torch.cat(keys), torch.cat(values)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute with fp16 edges: what is exported."""
        logits, keys, values = self.compute(input_ids)
        return logits.half(), keys.half(), values.half()


class StaticDecode(_Decoder):
    """`input_ids` [1, 1] int32, `position` [1] int32 → logits [1, 1, V].

    Keys and values are states [L, Hkv, C, D] in fp16. The new token is written at `position` by a
    comparison with every row (no dynamic index, so the graph stays static); rows after it are
    masked, so whatever they hold is not seen. Each state is read once and written once per step.
    """

    k_cache: Tensor
    v_cache: Tensor
    rows: Tensor

    def __init__(
        self, architecture: Architecture, weights: Mapping[str, Tensor], capacity: int
    ) -> None:
        """Carry `weights` in a graph whose state holds `capacity` tokens.

        Raises PhaseError when the weights are not those of the architecture, or not finite.
        """
        super().__init__(architecture, weights, capacity)
        a = architecture
        shape = (a.num_hidden_layers, a.num_key_value_heads, capacity, a.head_dim)
        self.register_buffer("k_cache", torch.zeros(shape, dtype=torch.float16))
        self.register_buffer("v_cache", torch.zeros(shape, dtype=torch.float16))
        self.register_buffer("rows", torch.arange(capacity, dtype=torch.int32))

    def compute(
        self, input_ids: Tensor, position: Tensor, caches: Caches
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits and the new caches, kept in the dtype of `caches`."""
        turn = self.cos.index_select(0, position), self.sin.index_select(0, position)
        here = (self.rows == position).view(self.length, 1)
        mask = torch.where(self.rows <= position, 0.0, MASKED).view(1, 1, 1, self.length)
        x = functional.embedding(input_ids, self.embedding)
        keys, values = [], []
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, _Block)  # noqa: S101  # nn.ModuleList forgets its type
            q, k, v = block.project(x, turn, 1)
            k, v = (
                torch.where(here, new.to(cache.dtype), cache[layer : layer + 1])
                for new, cache in zip((k, v), caches, strict=True)
            )
            x = block.mix(x, q, (k.float(), v.float()), mask, 1)
            keys.append(k)
            values.append(v)
        # Before the logits: coremltools 9.0 trips over two states written right after each other
        # (its pass canonicalize_inplace_pattern looks for an operation that it has just removed).
        new = torch.cat(keys), torch.cat(values)
        return self.logits(x), *new

    def forward(self, input_ids: Tensor, position: Tensor) -> Tensor:
        """Compute with fp16 edges: what is exported."""
        logits, keys, values = self.compute(input_ids, position, (self.k_cache, self.v_cache))
        self.k_cache.copy_(keys)
        self.v_cache.copy_(values)
        return logits.half()
