"""What crosses the border of a static graph: names, dtypes, shapes and what they mean.

Owns the names that the contract, the Core ML package and the device share, and the comparison of
a program or package with them. Needs no heavy library: a program is looked at through its own
attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.schemas.contract import Architecture, Contract, Tensor
from stillhouse.schemas.slot import Mode

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_CACHE = "[layer, key-value head, token, head dimension]"


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """Fields of the contract that are words."""

    mask: str
    position: str
    cache: str


CONVENTIONS: dict[Mode, Conventions] = {
    "prefill": Conventions(
        mask="Causal, constant, inside the graph. There is no padding: a shorter prompt is filled "
        "up on the right, and what follows its last token is ignored.",
        position="Token i of input_ids has position i, from 0.",
        cache=f"Outputs k_cache and v_cache {_CACHE}, keys already rotated; rows 0..n-1 are copied "
        "into the decode state of the same names to continue after n tokens.",
    ),
    "decode": Conventions(
        mask="Causal, inside the graph: rows after `position` are not seen, whatever they hold.",
        position="`position` is the number of tokens before this one, from 0; it must be less than "
        "the capacity, which the graph does not check.",
        cache=f"States k_cache and v_cache {_CACHE}, keys already rotated. Each step writes row "
        "`position` and leaves the others as they were.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Interface:
    """Names, dtypes and shapes at a graph's border, in order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    states: tuple[Tensor, ...]


def promised(mode: Mode, architecture: Architecture, length: int) -> Interface:
    """Say what a graph for `length` tokens, or of that capacity in decode, takes and gives."""
    a = architecture
    caches = tuple(
        Tensor(
            name=name,
            dtype="float16",
            shape=(a.num_hidden_layers, a.num_key_value_heads, length, a.head_dim),
            semantics=f"{_CACHE}: {what}",
        )
        for name, what in (("k_cache", "keys, rotated"), ("v_cache", "values"))
    )
    tokens = length if mode == "prefill" else 1
    ids = Tensor(
        name="input_ids", dtype="int32", shape=(1, tokens), semantics="[batch, token]: token ids"
    )
    logits = Tensor(
        name="logits",
        dtype="float16",
        shape=(1, tokens, a.vocab_size),
        semantics="[batch, token, vocabulary]: scores of the next token",
    )
    if mode == "prefill":
        return Interface(inputs=(ids,), outputs=(logits, *caches), states=())
    position = Tensor(
        name="position", dtype="int32", shape=(1,), semantics="tokens before this one"
    )
    return Interface(inputs=(ids, position), outputs=(logits,), states=caches)


def of_contract(contract: Contract) -> Interface:
    """Take what a contract promises."""
    return Interface(inputs=contract.inputs, outputs=contract.outputs, states=contract.states)


Border = Mapping[str, str]
"""`input input_ids` -> `int32 [1, 128]`: what crosses, and how it looks."""


def border(interface: Interface) -> Border:
    """Spell an interface so that it can be compared."""
    sides = (
        ("input", interface.inputs),
        ("output", interface.outputs),
        ("state", interface.states),
    )
    return {f"{side} {t.name}": look(t.dtype, t.shape) for side, ts in sides for t in ts}


def program_border(program: ExportedProgram, output_names: Sequence[str]) -> Border:
    """Spell what a functional program (`archive.functional`) takes, gives and changes.

    A program's outputs have no names of their own; they get `output_names` by place.
    """
    signature = program.graph_signature
    looks = {node.name: _node_look(node.meta.get("val")) for node in program.graph.nodes}
    buffers = {name: node for node, name in signature.inputs_to_buffers.items()}
    outputs = list(signature.user_outputs)
    names = [*output_names, *(f"number {i}" for i in range(len(output_names), len(outputs)))]
    return {
        **{f"input {node}": looks[str(node)] for node in signature.user_inputs},
        **{f"output {name}": looks[str(node)] for name, node in zip(names, outputs, strict=False)},
        **{f"state {b}": looks[buffers[b]] for b in signature.buffers_to_mutate.values()},
    }


def differences(found: Border, wanted: Border) -> tuple[str, ...]:
    """Name what is missing, too much, or looks different; empty when both are equal."""
    return (
        *(f"{name} ({wanted[name]}) is missing" for name in wanted if name not in found),
        *(f"{name} ({found[name]}) is not promised" for name in found if name not in wanted),
        *(
            f"{name} is {found[name]} instead of {wanted[name]}"
            for name in wanted
            if name in found and found[name] != wanted[name]
        ),
    )


def look(dtype: str, shape: Sequence[object]) -> str:
    """Spell a tensor's type: `int32 [1, 128]`."""
    return f"{dtype} {list(shape)}"


def _node_look(value: object) -> str:
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None or shape is None:
        return type(value).__name__
    return look(str(dtype).removeprefix("torch."), tuple(shape))
