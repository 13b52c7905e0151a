"""The shape of a student, read from and written to Hugging Face's `config.json`.

Rule: a field that would change the numbers and that the model cannot express is an InputError
naming the field. Fields that only describe training or serving are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.schemas.contract import Architecture
from stillhouse.schemas.errors import InputError

_FIXED: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("model_type", ("llama",)),
    ("hidden_act", ("silu", "swish")),
    ("attention_bias", (False,)),
    ("mlp_bias", (False,)),
    ("quantization_config", (None,)),
    ("pretraining_tp", (1,)),
)
"""Fields with the only values that the model computes; absent counts as the first."""

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """A Llama-architecture decoder with grouped-query attention."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 2048
    """Longest sequence, in tokens, that the weights were trained for."""
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    """True: the head is the embedding table."""
    initializer_range: float = 0.02
    """Standard deviation of fresh random weights."""
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    """Any of these ends an answer."""
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in (*_SIZES, "num_key_value_heads", "head_dim", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise _refused(name, getattr(self, name), "a positive integer")
        if self.num_attention_heads % self.num_key_value_heads:
            raise _refused(
                "num_key_value_heads",
                self.num_key_value_heads,
                f"a divisor of num_attention_heads = {self.num_attention_heads}",
            )
        if self.head_dim % 2:
            raise _refused("head_dim", self.head_dim, "an even number (RoPE turns pairs)")

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> StudentConfig:
        """Read a `config.json` dictionary, as written by transformers 4 or 5.

        Raises InputError that names the field which is missing, malformed or not supported.
        """
        for name, allowed in _FIXED:
            if config.get(name, allowed[0]) not in allowed:
                raise _refused(name, config[name], " or ".join(repr(a) for a in allowed))
        heads = _integer(config, "num_attention_heads")
        sizes = {name: _integer(config, name) for name in _SIZES}
        return cls(
            **sizes,
            num_key_value_heads=_integer(config, "num_key_value_heads", heads),
            head_dim=_integer(config, "head_dim", sizes["hidden_size"] // max(heads, 1)),
            max_position_embeddings=_integer(config, "max_position_embeddings", 2048),
            rope_theta=_rope_theta(config),
            rms_norm_eps=_number(config, "rms_norm_eps", 1e-6),
            tie_word_embeddings=_flag(config, "tie_word_embeddings"),
            initializer_range=_number(config, "initializer_range", 0.02),
            bos_token_id=_token(config, "bos_token_id"),
            eos_token_ids=_tokens(config, "eos_token_id"),
            pad_token_id=_token(config, "pad_token_id"),
        )

    def to_json(self) -> dict[str, Any]:
        """Write a `config.json` dictionary: `LlamaForCausalLM`, for transformers 4 and 5."""
        eos = self.eos_token_ids
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            # transformers 4 reads the first spelling, 5 the second.
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos[0] if len(eos) == 1 else list(eos) or None,
            "pad_token_id": self.pad_token_id,
            "dtype": "float32",
        }

    def architecture(self) -> Architecture:
        """Say what a contract says about this model."""
        return Architecture(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocab_size,
            rope_theta=self.rope_theta,
            rms_norm_eps=self.rms_norm_eps,
            tie_word_embeddings=self.tie_word_embeddings,
        )


def _rope_theta(config: Mapping[str, Any]) -> float:
    """Theta, from either spelling. Scaled RoPE is refused: it would silently change the numbers."""
    for name in ("rope_scaling", "rope_parameters"):
        rope = config.get(name)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise _refused(name, rope, "an object")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default" or rope.get("partial_rotary_factor", 1) != 1:
            raise _refused(name, rope, "plain RoPE (rope_type 'default')")
        if "rope_theta" in rope:
            return _number(rope, "rope_theta", 10000.0)
    return _number(config, "rope_theta", 10000.0)


def _integer(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool):
        raise _refused(name, value, "an integer")
    return value


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise _refused(name, value, "a positive number")
    return float(value)


def _flag(config: Mapping[str, Any], name: str) -> bool:
    value = config.get(name, False)
    if not isinstance(value, bool):
        raise _refused(name, value, "true or false")
    return value


def _token(config: Mapping[str, Any], name: str) -> int | None:
    return None if config.get(name) is None else _integer(config, name)


def _tokens(config: Mapping[str, Any], name: str) -> tuple[int, ...]:
    value = config.get(name)
    if isinstance(value, list):
        return tuple(_integer({name: token}, name) for token in value)
    return () if value is None else (_integer(config, name),)


def _refused(name: str, value: object, wanted: str) -> InputError:
    return InputError(
        f"config.json says {name} = {value!r}, but this model needs {wanted}.",
        remedy="Use a plain Llama-architecture model: no RoPE scaling, no biases, SiLU.",
        code="student.config",
    )
