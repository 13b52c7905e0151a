"""A Llama checkpoint's tensors against its config.json, before any memory is asked for.

Names and shapes as in transformers' Llama: https://huggingface.co/docs/transformers/model_doc/llama.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from stillhouse.phases.untrusted.tensors import TensorFact
from stillhouse.schemas.canonical import Json
from stillhouse.schemas.errors import UntrustedFileError

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_MAX_SIZE = 2**31
_HEAD = "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """The sizes of a Llama, in elements."""

    vocab: int
    hidden: int
    layers: int
    query: int
    """Heads times head_dim."""
    key: int
    """Key-value heads times head_dim."""
    intermediate: int
    tied: bool

    @classmethod
    def from_config(cls, config: Json) -> Self:
        hidden = _size(config, "hidden_size")
        heads = _size(config, "num_attention_heads")
        key_heads = _size(config, "num_key_value_heads", default=heads)
        if heads % key_heads:
            raise _bad_config(
                f"num_attention_heads {heads} is no multiple of num_key_value_heads {key_heads}"
            )
        if config.get("head_dim") is None and hidden % heads:
            raise _bad_config(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}")
        head_dim = _size(config, "head_dim", default=hidden // heads)
        tied = config.get("tie_word_embeddings", False)
        if not isinstance(tied, bool):
            raise _bad_config("tie_word_embeddings is neither true nor false")
        return cls(
            vocab=_size(config, "vocab_size"),
            hidden=hidden,
            layers=_size(config, "num_hidden_layers"),
            query=heads * head_dim,
            key=key_heads * head_dim,
            intermediate=_size(config, "intermediate_size"),
            tied=tied,
        )


def check_student_shapes(config: Json, tensors: Mapping[str, TensorFact]) -> None:
    """Check that a Llama's tensors are exactly those its config.json asks for.

    `tensors` as ModelFolderSummary has them. Raises UntrustedFileError that names the first wrong
    tensor (`checkpoint.wrong_shape`, `checkpoint.missing_tensor`, `checkpoint.unknown_tensor`), or
    the wrong field (`checkpoint.bad_config`).
    """
    if config.get("model_type") != "llama":
        raise _bad_config(f"model_type is {config.get('model_type')!r}, expected 'llama'")
    sizes = _Sizes.from_config(config)
    expected: set[str] = set()
    for name, shape in _expected(sizes):
        _check(name, shape, tensors.get(name))
        expected.add(name)
    if sizes.tied and _HEAD in tensors:  # some writers save the tied head a second time
        _check(_HEAD, (sizes.vocab, sizes.hidden), tensors[_HEAD])
        expected.add(_HEAD)
    unknown = min(tensors.keys() - expected, default=None)
    if unknown is not None:
        raise _wrong(
            f"Tensor {unknown} has no place in a Llama of {sizes.layers} layers without biases",
            "unknown_tensor",
        )


def _expected(sizes: _Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes, lazily: a config may claim a billion layers."""
    hidden, query, key, wide = sizes.hidden, sizes.query, sizes.key, sizes.intermediate
    yield "model.embed_tokens.weight", (sizes.vocab, hidden)
    for layer in range(sizes.layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (query, hidden)
        yield prefix + "self_attn.k_proj.weight", (key, hidden)
        yield prefix + "self_attn.v_proj.weight", (key, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, query)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (wide, hidden)
        yield prefix + "mlp.up_proj.weight", (wide, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, wide)
    yield "model.norm.weight", (hidden,)
    if not sizes.tied:
        yield _HEAD, (sizes.vocab, hidden)


def _check(name: str, shape: tuple[int, ...], found: TensorFact | None) -> None:
    if found is None:
        raise _wrong(f"Tensor {name} is missing; config.json asks for {shape}", "missing_tensor")
    dtype, found_shape = found
    if found_shape != shape:
        raise _wrong(
            f"Tensor {name} has shape {found_shape}; config.json asks for {shape}", "wrong_shape"
        )
    if dtype not in _FLOATS:
        raise _wrong(f"Tensor {name} has dtype {dtype}; expected a float", "wrong_dtype")


def _size(config: Json, field: str, *, default: int | None = None) -> int:
    value: Any = config.get(field)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 0 < value < _MAX_SIZE:
        raise _bad_config(f"{field} is {str(value)[:40]}, expected a positive number")
    return value


def _bad_config(what: str) -> UntrustedFileError:
    return UntrustedFileError(
        f"config.json does not describe a student: {what}.",
        remedy="Give the config.json that was saved with these weights.",
        code="checkpoint.bad_config",
    )


def _wrong(what: str, code: str) -> UntrustedFileError:
    return UntrustedFileError(
        f"{what}.",
        remedy="Give the config.json that was saved with these weights.",
        code=f"checkpoint.{code}",
    )
