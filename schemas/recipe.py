"""Recipes: what a user writes (TOML), and the resolved form that names everything by digest.

Each section is what one phase reads and nothing more, because a phase's run key holds exactly its
section. A section that is absent means: this plan does not run that phase. `given` fills the place
of phases that do not run (a checkpoint made elsewhere).

A reference (`Ref`) is a path relative to the recipe, `dist:DISTRIBUTION/FILE` (a file shipped by an
installed distribution), a digest prefix, a tag, or `kind@latest`. In a resolved recipe every
reference is a complete digest. No path enters a run key.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillhouse.schemas.policy import Tier
from stillhouse.schemas.slot import Shape, shapes_of
from stillhouse.schemas.value import Value

Ref = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class TeacherSection(Value):
    """Where the teacher is."""

    model: Ref
    """A Hugging Face folder or a GGUF file."""
    name: str
    """What people call it."""


class Source(Value):
    """One file of prompts."""

    format: Literal["jsonl", "bfcl"]
    """`jsonl`: one object a line, with `messages` or `prompt`, optional `tools`, optional `answer`.
    `bfcl`: a Berkeley Function-Calling Leaderboard question file with its answer file."""
    questions: Ref
    answers: Ref | None = None
    """`bfcl` only: the file of possible answers."""


class Splits(Value):
    """How many examples each split gets, filled in the order of their content hashes.

    No content and no function name occurs in two splits.
    """

    train: Positive
    held_out: Positive
    evaluation: Positive


class DatasetSection(Value):
    """Phase 2: prompts, answers, the teacher's top-k log-probabilities, and the splits."""

    sources: tuple[Source, ...] = Field(min_length=1)
    answers: Literal["given", "generated"]
    """`given`: the sources' answers, scored by the teacher. `generated`: it writes them."""
    splits: Splits
    max_tokens: Positive = 160
    """Longest prompt + answer, in tokens; longer examples are left out."""
    max_new_tokens: Positive = 64
    """Longest generated answer, in tokens."""
    top_k: Annotated[int, Field(gt=0, le=256)] = 32
    """Teacher log-probabilities kept per answer position; the rest is one tail bucket."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature of generated answers; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    system: str = ""
    """System prompt; tool schemas follow it."""
    allowed_hosts: tuple[str, ...] = ("example.com", "example.org", "example.net")
    """Hosts that the privacy check accepts in URLs."""
    seed: int = 0
    threads: Positive = 2


class StudentSection(Value):
    """The student: chosen layers of the teacher, or a fresh model of a given shape."""

    layers: tuple[int, ...] = ()
    """Teacher layers to start from, in order."""
    hidden_size: Positive | None = None
    intermediate_size: Positive | None = None
    num_hidden_layers: Positive | None = None
    num_attention_heads: Positive | None = None
    num_key_value_heads: Positive | None = None
    """The last five only for a student with random weights: then all five, and no `layers`."""

    @model_validator(mode="after")
    def _one_way(self) -> StudentSection:
        shape = (
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
        )
        given = sum(s is not None for s in shape)
        if bool(self.layers) == bool(given):
            raise ValueError("a student has either `layers` or a shape")
        if given and given < len(shape):
            raise ValueError("a student's shape needs all five sizes")
        return self


class TrainingSection(Value):
    """Phase 3: knowledge distillation."""

    steps: Positive
    batch_size: Positive = 8
    """Examples per micro-batch."""
    grad_accumulation: Positive = 1
    """Micro-batches per optimizer step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    kl_weight: Fraction = 0.9
    ce_weight: Fraction = 0.1
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of the KL term, which is multiplied by its square (Hinton et al. 2015)."""
    bf16: bool = False
    checkpoint_every: Positive = 10
    """Optimizer steps between resume points."""
    evaluate_every: Positive = 20
    """Optimizer steps between points of the held-out curve."""
    seed: int = 0
    threads: Positive = 2


class ExportSection(Value):
    """Phase 4: static graphs. One slot per prefill length, one for decode."""

    prefill: tuple[Positive, ...] = Field(min_length=1)
    """Prefill lengths T, in tokens."""
    primary: Positive
    """The length that must work. Others may fail without blocking."""
    decode_capacity: Positive | None = None
    """Tokens that the decode state holds; absent: no decode graph."""
    threads: Positive = 2

    @model_validator(mode="after")
    def _primary_is_listed(self) -> ExportSection:
        if self.primary not in self.prefill:
            raise ValueError("`primary` must be one of `prefill`")
        if len(set(self.prefill)) != len(self.prefill):
            raise ValueError("`prefill` lists a length twice")
        return self

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every graph that the recipe asks for."""
        return shapes_of(self.prefill, self.primary, self.decode_capacity)


class ConversionSection(Value):
    """Phase 5: Core ML."""

    target: Literal["iOS18"] = "iOS18"
    precision: Literal["float16"] = "float16"
    threads: Positive = 2


class VerificationSection(Value):
    """Phase 6: the saved package, checked on this machine."""

    sequences: Positive = 4
    """Held-out texts per prefill package."""
    decode_steps: Positive = 16
    """Tokens decoded through the package's state and compared with prefill."""
    threads: Positive = 2


class EvaluationSection(Value):
    """Phase 7: teacher, untrained student and trained student, side by side."""

    slots: Positive = 165
    """Most argument slots to decode."""
    free_form: Positive = 16
    """Prompts answered freely, for JSON validity."""
    max_new_tokens: Positive = 48
    """Longest free-form answer, in tokens."""
    resamples: Positive = 1000
    """Bootstrap resamples of each confidence interval."""
    seed: int = 0
    threads: Positive = 2


class DeploymentSection(Value):
    """Phase 8: the runtime budget of the deployed model. Not the tier."""

    max_new_tokens: Positive = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_refinement_loops: Annotated[int, Field(ge=0)] = 0
    max_latent_spans: Annotated[int, Field(ge=0)] = 0


class Given(Value):
    """Artifacts made elsewhere, in place of the phases that make them."""

    checkpoint: Ref | None = None
    dataset: Ref | None = None


class Recipe(Value):
    """A whole recipe. In its resolved form every `Ref` is a complete digest."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    tier: Tier = Tier.TIER_2
    policy: Ref
    teacher: TeacherSection | None = None
    dataset: DatasetSection | None = None
    student: StudentSection | None = None
    training: TrainingSection | None = None
    export: ExportSection | None = None
    conversion: ConversionSection | None = None
    verification: VerificationSection | None = None
    evaluation: EvaluationSection | None = None
    deployment: DeploymentSection | None = None
    given: Given = Given()

    @model_validator(mode="after")
    def _chain(self) -> Recipe:
        """Each section needs the ones that make its inputs."""
        has_data = self.dataset or self.given.dataset
        has_checkpoint = self.training or self.given.checkpoint
        rules: tuple[tuple[object, object, str], ...] = (
            (self.dataset, self.teacher, "[dataset] needs [teacher]"),
            (self.training, self.dataset, "[training] needs [dataset]"),
            (self.training, self.student, "[training] needs [student]"),
            (self.export, has_checkpoint, "[export] needs [training] or given.checkpoint"),
            (self.conversion, self.export, "[conversion] needs [export]"),
            (self.verification, self.conversion, "[verification] needs [conversion]"),
            (self.evaluation, has_checkpoint, "[evaluation] needs [training] or given.checkpoint"),
            (self.evaluation, has_data, "[evaluation] needs [dataset] or given.dataset"),
            (self.evaluation, self.teacher, "[evaluation] needs [teacher]"),
            (self.deployment, self.conversion, "[deployment] needs [conversion]"),
        )
        for section, need, message in rules:
            if section and not need:
                raise ValueError(message)
        if self.training and self.given.checkpoint:
            raise ValueError("a recipe has either [training] or given.checkpoint")
        if self.dataset and self.given.dataset:
            raise ValueError("a recipe has either [dataset] or given.dataset")
        return self
