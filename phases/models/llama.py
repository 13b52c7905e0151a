"""The decoder itself: RMSNorm, rotary grouped-query attention, SwiGLU (the Llama architecture).

Rules: attribute names spell Hugging Face's parameter names; padding is on the right, where a causal
mask alone keeps it from every real token, so no token id ever counts as padding; norms and
rotations are computed in at least fp32, whatever the weights are.

Formulas: RMSNorm, Zhang and Sennrich 2019; RoPE, Su et al. 2021 (halves rotated as in
transformers); grouped-query attention, Ainslie et al. 2023; SwiGLU, Shazeer 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.phases.models.config import StudentConfig


class KeyValues:
    """What attention remembers of a prefix, for up to `capacity` tokens.

    All rows of a batch have the same length. `rewind` forgets a suffix, so that several
    continuations can share one prefix.
    """

    def __init__(
        self, config: StudentConfig, *, batch: int, capacity: int, dtype: torch.dtype
    ) -> None:
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads)
        self._keys = torch.zeros(*shape, capacity, config.head_dim, dtype=dtype)
        self._values = torch.zeros_like(self._keys)
        self.capacity = capacity
        self.length = 0
        """Tokens remembered."""

    def store(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep [B, heads, T, D] after the remembered tokens; return all of them so far."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"{end} tokens do not fit a capacity of {self.capacity}")
        self._keys[layer, :, :, self.length : end] = keys
        self._values[layer, :, :, self.length : end] = values
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        """All layers have stored `tokens` more."""
        self.length += tokens

    def rewind(self, length: int) -> None:
        """Forget everything after the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind from {self.length} to {length} tokens")
        self.length = length


class Norm(nn.Module):
    """RMSNorm: w · x / sqrt(mean(x²) + eps)."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] -> [..., H], in the dtype of x."""
        wide = widen(x)
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        self.repeats = heads // groups
        self.q_proj = nn.Linear(config.hidden_size, heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, groups * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, groups * config.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * config.head_dim, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], past: KeyValues | None, layer: int
    ) -> Tensor:
        """[B, T, H] -> [B, T, H]; `turn` is cosine and sine of [.., 1, T, D]."""
        query = rotate(self._heads(self.q_proj(x)), turn)
        key = rotate(self._heads(self.k_proj(x)), turn)
        value = self._heads(self.v_proj(x))
        if past is not None:
            key, value = past.store(layer, key, value)
        mixed = attend(query, self._share(key), self._share(value))
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """[B, T, n·D] -> [B, n, T, D]."""
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def _share(self, x: Tensor) -> Tensor:
        """Each key-value head serves `repeats` neighbouring query heads."""
        return x if self.repeats == 1 else x.repeat_interleave(self.repeats, dim=1)


class Mlp(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] -> [..., H]."""
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One decoder layer: attention and MLP, each behind its norm, each added to the stream."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = Mlp(config)
        self.input_layernorm = Norm(config)
        self.post_attention_layernorm = Norm(config)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], past: KeyValues | None, layer: int
    ) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        x = x + self.self_attn(self.input_layernorm(x), turn, past, layer)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """Embedding, layers and final norm: everything under Hugging Face's prefix `model.`."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config)


class Student(nn.Module):
    """A causal language model over right-padded token ids."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        )

    def forward(
        self,
        input_ids: Tensor,
        *,
        positions: Tensor | None = None,
        past: KeyValues | None = None,
    ) -> Tensor:
        """Logits [B, T, V] of the token after each of `input_ids` [B, T] (int64)."""
        return self.logits(self.hidden(input_ids, positions=positions, past=past))

    def hidden(
        self,
        input_ids: Tensor,
        *,
        positions: Tensor | None = None,
        past: KeyValues | None = None,
    ) -> Tensor:
        """Compute what the head reads: [B, T] int64 -> [B, T, H], after the final norm.

        `positions` ([T] or [B, T]) default to counting on from what `past` remembers; `past`, when
        given, remembers these tokens too.
        """
        length = input_ids.shape[1]
        start = past.length if past is not None else 0
        if positions is None:
            positions = torch.arange(start, start + length, device=input_ids.device)
        x = self.model.embed_tokens(input_ids)
        turn = self._turn(positions, x.dtype)
        for number, layer in enumerate(self.model.layers):
            x = layer(x, turn, past, number)
        if past is not None:
            past.advance(length)
        out: Tensor = self.model.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head, at the positions that matter: [..., H] -> [..., V]."""
        return functional.linear(hidden, self.head())

    def head(self) -> Tensor:
        """Find the output matrix [V, H]: the embedding table when the two are tied."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def _turn(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the rotary angles, [.., 1, T, D], computed in fp32."""
        pairs = torch.arange(0, self.config.head_dim, 2, device=positions.device).float()
        frequencies = 1.0 / (self.config.rope_theta ** (pairs / self.config.head_dim))
        angles = positions[..., None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1).unsqueeze(-3)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (d, d + D/2) of [B, n, T, D] by their position's angles."""
    cosine, sine = turn
    first, second = x.chunk(2, dim=-1)
    turned = x * cosine + torch.cat((-second, first), dim=-1) * sine
    return turned.to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of the last T tokens, [B, n, T, D], over all S, [B, n, S, D].

    In at least fp32, also under autocast: on a CPU the backward of PyTorch's fused bf16 attention
    takes twice the time of the fp32 one.
    """
    queries, keys = query.shape[2], key.shape[2]
    mask = None
    if 1 < queries < keys:
        seen = torch.ones(queries, keys, dtype=torch.bool, device=query.device)
        mask = seen.tril(diagonal=keys - queries)
    with torch.autocast(query.device.type, enabled=False):
        mixed = functional.scaled_dot_product_attention(
            widen(query), widen(key), widen(value), attn_mask=mask, is_causal=queries == keys > 1
        )
    return mixed.to(value.dtype)


def widen(x: Tensor) -> Tensor:
    """At least fp32; fp64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
