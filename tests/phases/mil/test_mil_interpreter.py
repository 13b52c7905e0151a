"""Whole programs: a converted attention block, a stateful model, and what fp16 does to numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.phases.mil import Interpreter, Package, unknown_ops
from stillhouse.schemas.errors import PhaseError

pytestmark = pytest.mark.coreml

ct: Any = coremltools
mb: Any = Builder
"""Both grow attributes at run time, where no type checker sees them."""

WIDTH, HEADS, KV_HEADS, LENGTH, VOCAB = 16, 4, 2, 8, 32
HEAD = WIDTH // HEADS


class Block(nn.Module):
    """Embedding, RMSNorm, grouped-query attention with rotary positions, gated MLP, tied head."""

    cos: Tensor
    sin: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, HEAD * KV_HEADS, bias=False)
        self.value = nn.Linear(WIDTH, HEAD * KV_HEADS, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate = nn.Linear(WIDTH, 24, bias=False)
        self.up = nn.Linear(WIDTH, 24, bias=False)
        self.down = nn.Linear(24, WIDTH, bias=False)
        angles = torch.arange(LENGTH)[:, None] / 100 ** (torch.arange(HEAD // 2) / (HEAD // 2))
        angles = torch.cat([angles, angles], -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.register_buffer("mask", torch.full((LENGTH, LENGTH), -math.inf).triu(1))

    def norm(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)

    def turn(self, x: Tensor) -> Tensor:
        low, high = x[..., : HEAD // 2], x[..., HEAD // 2 :]
        return x * self.cos + torch.cat([-high, low], -1) * self.sin

    def attend(self, x: Tensor) -> Tensor:
        q = self.query(x).view(1, LENGTH, HEADS, HEAD).transpose(1, 2)
        k = self.key(x).view(1, LENGTH, KV_HEADS, HEAD).transpose(1, 2)
        v = self.value(x).view(1, LENGTH, KV_HEADS, HEAD).transpose(1, 2)
        k = (
            self.turn(k)[:, :, None]
            .expand(1, KV_HEADS, 2, LENGTH, HEAD)
            .reshape(1, HEADS, LENGTH, HEAD)
        )
        v = v[:, :, None].expand(1, KV_HEADS, 2, LENGTH, HEAD).reshape(1, HEADS, LENGTH, HEAD)
        y = functional.scaled_dot_product_attention(self.turn(q), k, v, attn_mask=self.mask)
        made: Tensor = self.out(y.transpose(1, 2).reshape(1, LENGTH, WIDTH))
        return made

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.attend(self.norm(x))
        h = self.norm(x)
        x = x + self.down(functional.silu(self.gate(h)) * self.up(h))
        return functional.linear(self.norm(x), self.embed.weight)


@pytest.fixture(scope="module")
def block() -> Block:
    torch.manual_seed(3)
    return Block().eval()


@pytest.fixture(scope="module", params=["FLOAT32", "FLOAT16"])
def converted(
    request: pytest.FixtureRequest, block: Block, convert_traced: Callable[..., Path]
) -> Package:
    tokens = torch.zeros(1, LENGTH, dtype=torch.int32)
    inputs = [ct.TensorType(name="tokens", shape=(1, LENGTH), dtype=np.int32)]
    outputs = [ct.TensorType(name="logits", dtype=np.float32)]
    precision = getattr(ct.precision, request.param)
    return Package.open(
        convert_traced(block, tokens, inputs=inputs, outputs=outputs, compute_precision=precision)
    )


TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 31]], dtype=torch.int32)


def test_a_converted_attention_block_gives_the_logits_of_the_original(
    block: Block, converted: Package
) -> None:
    half = "float16" in {r.type.dtype for op in converted.ops() for r in op.results}
    expected = block(TOKENS)
    found = Interpreter(converted).run({"tokens": TOKENS})
    torch.testing.assert_close(
        found.outputs["logits"], expected, rtol=0, atol=2e-2 if half else 1e-5
    )
    declared = Interpreter(converted, arithmetic="declared").run({"tokens": TOKENS})
    torch.testing.assert_close(
        declared.outputs["logits"], expected, rtol=0, atol=5e-2 if half else 1e-5
    )
    assert torch.equal(declared.outputs["logits"], found.outputs["logits"]) == (not half)
    assert found.stats.nonfinite == declared.stats.nonfinite == 0


def test_a_package_tells_what_is_in_it(converted: Package) -> None:
    assert converted.specification_version == 9
    assert converted.functions == ("main",)
    assert converted.opset() == "CoreML8"
    assert unknown_ops(converted.function()) == ()
    assert {k: str(v) for k, v in converted.signature().inputs.items()} == {"tokens": "int32[1, 8]"}
    assert converted.description() == converted.signature()
    histogram = converted.op_histogram()
    assert histogram["scaled_dot_product_attention"] == 1
    assert sum(histogram.values()) - histogram["const"] == len(converted.ops())
    stats = Interpreter(converted).run({"tokens": TOKENS}).stats
    assert stats.executed == len(converted.ops())


def test_running_twice_gives_the_same_bits(converted: Package) -> None:
    interpreter = Interpreter(converted, arithmetic="declared")
    first, second = (interpreter.run({"tokens": TOKENS}).outputs["logits"] for _ in range(2))
    assert torch.equal(first, second)


class Counter(nn.Module):
    """Adds its input to a running sum; the sum is the state."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(x)
        return self.total * 2


@pytest.fixture(scope="module")
def counter(convert_traced: Callable[..., Path]) -> Package:
    shape = (2, 3)
    return Package.open(
        convert_traced(
            Counter(),
            torch.zeros(shape),
            inputs=[ct.TensorType(name="x", shape=shape, dtype=np.float16)],
            outputs=[ct.TensorType(name="y", dtype=np.float16)],
            states=[ct.StateType(ct.TensorType(shape=shape, dtype=np.float16), name="total")],
            compute_precision=ct.precision.FLOAT16,
        )
    )


def test_states_go_from_run_to_run_and_the_callers_stay_unchanged(counter: Package) -> None:
    interpreter = Interpreter(counter)
    x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    states = interpreter.new_states()
    for step in range(1, 4):
        given = states["total"].clone()
        result = interpreter.run({"x": x}, states)
        torch.testing.assert_close(result.outputs["y"], 2 * step * x)
        assert torch.equal(states["total"], given)
        states = result.states
    torch.testing.assert_close(states["total"], 3 * x)


def test_without_states_a_run_starts_from_zero(counter: Package) -> None:
    interpreter = Interpreter(counter)
    x = torch.ones(2, 3)
    for _ in range(2):
        assert torch.equal(interpreter.run({"x": x}).states["total"], x)


def test_a_package_tells_how_its_states_are_used(counter: Package) -> None:
    (use,) = counter.state_use().values()
    assert use.writes == 1
    assert use.reads >= 1
    assert str(counter.signature().states["total"]) == "float16[2, 3]"
    assert counter.description().states == counter.signature().states


@pytest.fixture(scope="module")
def square(save_program: Callable[..., Path]) -> Package:
    def build(x: Any) -> Any:
        halves = mb.cast(x=x, dtype="fp16")
        mean = mb.reduce_mean(x=mb.mul(x=halves, y=halves, name="big"), axes=[-1])
        return mb.cast(x=mb.rsqrt(x=mean), dtype="fp32", name="y")

    return Package.open(save_program(build, {"x": np.zeros((2, 4), np.float32)}))


def test_declared_mode_finds_an_fp16_overflow_that_the_output_hides(square: Package) -> None:
    x = torch.tensor([[300.0, 1, 1, 1], [2, 2, 2, 2]])
    found = Interpreter(square, arithmetic="declared").run({"x": x})
    assert found.outputs["y"].isfinite().all()
    assert found.stats.nonfinite == 1
    assert found.stats.first_nonfinite_op == "mul:big"
    assert (found.stats.max_abs, found.stats.max_abs_op) == (90000.0, "mul:big")


def test_fp32_mode_does_not_overflow(square: Package) -> None:
    x = torch.tensor([[300.0, 1, 1, 1], [2, 2, 2, 2]])
    found = Interpreter(square).run({"x": x})
    assert (found.stats.nonfinite, found.stats.first_nonfinite_op) == (0, None)
    assert found.stats.attention_peak is None
    torch.testing.assert_close(found.outputs["y"], (x * x).mean(-1).rsqrt())


def test_a_mask_of_minus_infinity_is_no_finding_but_what_it_spoils_is(
    save_program: Callable[..., Path],
) -> None:
    mask = np.array([[0, -np.inf], [-np.inf, -np.inf]], np.float32)

    def build(x: Any) -> Any:
        scores = mb.add(x=x, y=mask, name="masked")
        return mb.softmax(x=scores, name="weights")

    package = Package.open(save_program(build, {"x": np.zeros((2, 2), np.float32)}))
    stats = Interpreter(package).run({"x": torch.zeros(2, 2)}).stats
    assert (stats.nonfinite, stats.first_nonfinite_op) == (2, "softmax:weights")
    x = torch.tensor([[math.inf, 1.0], [1.0, math.nan]])
    assert Interpreter(package).run({"x": x}).stats.first_nonfinite_op == "add:masked"


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_a_score_inside_of_attention_that_fp16_cannot_hold_is_counted_in_declared_mode(
    save_program: Callable[..., Path], dtype: str
) -> None:
    def build(x: Any) -> Any:
        halves = mb.cast(x=x, dtype=dtype)
        joined = mb.scaled_dot_product_attention(query=halves, key=halves, value=halves, name="a")
        return mb.cast(x=joined, dtype="fp32", name="y")

    package = Package.open(save_program(build, {"x": np.zeros((1, 1, 2, 4), np.float32)}))
    x = torch.full((1, 1, 2, 4), 1.0)
    x[0, 0, 0] = 300.0  # beside itself: 4 · 300² / √4; every result is at most 300
    found = Interpreter(package, arithmetic="declared").run({"x": x})
    assert found.outputs["y"].isfinite().all()
    assert found.stats.attention_peak == 180_000
    expected = (1, "scaled_dot_product_attention:a") if dtype == "fp16" else (0, None)
    assert (found.stats.nonfinite, found.stats.first_nonfinite_op) == expected
    exact = Interpreter(package).run({"x": x}).stats
    assert (exact.nonfinite, exact.attention_peak) == (0, 180_000)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"x": torch.zeros(2, 4), "y": torch.zeros(1)},
        {"x": torch.zeros(2, 5)},
        {"x": torch.zeros(2, 4, dtype=torch.int32)},
        {"x": torch.zeros(2, 4, dtype=torch.float64)},
    ],
    ids=["missing", "extra", "shape", "kind", "width"],
)
def test_inputs_must_be_exactly_the_declared_ones(
    square: Package, inputs: dict[str, Tensor]
) -> None:
    with pytest.raises(PhaseError) as caught:
        Interpreter(square).run(inputs)
    assert caught.value.code == "mil.input_mismatch"


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_that_no_device_defines_is_an_error_that_names_the_operation(
    save_program: Callable[..., Path], index: int
) -> None:
    def build(x: Any, i: Any) -> Any:
        return mb.gather(x=x, indices=i, axis=0, name="picked")

    x, i = np.zeros((3, 2), np.float32), np.zeros(1, np.int32)
    package = Package.open(save_program(build, {"x": x, "i": i}))
    with pytest.raises(PhaseError, match="gather:") as caught:
        Interpreter(package).run(
            {"x": torch.zeros(3, 2), "i": torch.tensor([index], dtype=torch.int32)}
        )
    assert caught.value.code == "mil.op_failed"
