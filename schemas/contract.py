"""The contract of one exported graph: what the next phases and the device may rely on.

One contract per export slot, published beside the graph as canonical JSON. Its summary travels in
the event of the `contract` artifact.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stillhouse.schemas.digest import Digest, Sha256
from stillhouse.schemas.slot import Mode, shape_id
from stillhouse.schemas.value import Value

Dtype = Literal["int32", "float16", "float32"]


class Tensor(Value):
    """One named input, output or state."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    semantics: str
    """What the axes are, in words: `[batch, token]`."""


class Architecture(Value):
    """A Llama-architecture GQA decoder."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool


class ShapeStatus(Value):
    """What happened when this shape was exported."""

    status: Literal["ok", "error"]
    error: str | None = None
    max_abs: float | None = None
    """Largest |exported - checkpoint| over the golden tokens' logits, in fp32."""
    seconds: float | None = None


class Golden(Value):
    """A fixed input and what the checkpoint answered: the graph's own regression test."""

    token_ids: tuple[int, ...]
    text: Literal["held_out", "built_in", "synthetic"]
    """Where the tokens come from."""
    top_ids: tuple[int, ...]
    """The checkpoint's most likely next token after each position."""
    logits_sha256: Sha256
    """Of the checkpoint's fp32 logits, rounded to 3 decimals, little-endian, row-major."""


class Contract(Value):
    """Everything that an export promises. The list is the end of the workflow's phase 4."""

    schema_version: Literal[1] = 1
    mode: Mode
    length: int = Field(gt=0)
    """T for prefill; the state's capacity in tokens for decode."""
    shape_validation: ShapeStatus
    """Of this graph. Which lengths a recipe asks for, and which is primary, is for the plan and the
    manifest's `shapes`: if it were in here, adding a length would re-export the others."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    states: tuple[Tensor, ...] = ()
    mask_convention: str
    position_convention: str
    cache_layout: str
    architecture: Architecture
    rms_norm: str
    """Name of the fp16-safe form that is used."""
    tokenizer: Digest | None = None
    """BLAKE3 of the checkpoint's tokenizer.json."""
    checkpoint: Digest
    checkpoint_step: int | None = None
    export_sha256: Sha256
    """Of the canonicalised `.pt2` archive."""
    export_digest: Digest
    format: Literal["torch.export.pt2"] = "torch.export.pt2"
    route: str
    """How the graph was taken: `torch.export strict=False`."""
    tools: dict[str, str]
    target: str
    precision: str
    golden: Golden
    tolerances: dict[str, float]
    """What the export itself checked, and how tightly."""
    warnings: tuple[str, ...] = ()

    @property
    def shape_id(self) -> str:
        """The id of the shape that it is for: `prefill-128`."""
        return shape_id(self.mode, self.length)
