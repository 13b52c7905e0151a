"""Each check must catch the fault that it is there for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from stillhouse.phases.export.checks import demand, measure_archive, measure_decode, measure_prefill
from stillhouse.phases.models.static import archive
from stillhouse.phases.models.static.graphs import Caches, StaticDecode, StaticPrefill
from stillhouse.schemas.errors import PhaseError

from .graph_parts import LENGTH, ids, tiny_architecture, tiny_student


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def prefill(kind: type[StaticPrefill] = StaticPrefill) -> StaticPrefill:
    return kind(tiny_architecture(), tiny_student().state_dict(), LENGTH)


def decode(kind: type[StaticDecode] = StaticDecode) -> StaticDecode:
    return kind(tiny_architecture(), tiny_student().state_dict(), LENGTH)


def refusal(figures: dict[str, float]) -> PhaseError:
    with pytest.raises(PhaseError) as refused:
        demand(figures)
    return refused.value


def test_sound_graphs_pass() -> None:
    for measured in (
        measure_prefill(tiny_student(), prefill(), ids()),
        measure_decode(tiny_student(), decode(), ids()),
    ):
        demand(measured.figures)
        assert measured.figures["causality.max_abs_change"] == 0
        assert measured.figures["parity.top1_agreement"] == 1


def test_a_graph_that_sees_the_next_token_is_refused() -> None:
    graph = prefill()
    for place in range(LENGTH - 1):
        graph.mask[0, 0, place, place + 1] = 0
    figures = dict(measure_prefill(tiny_student(), graph, ids()).figures)
    assert figures["causality.max_abs_change"] > 1e-2
    leak = refusal({"causality.max_abs_change": figures["causality.max_abs_change"]})
    assert leak.code == "export.causality"


def test_a_graph_of_other_weights_is_refused() -> None:
    other = StaticPrefill(tiny_architecture(), tiny_student(seed=6).state_dict(), LENGTH)
    figures = dict(measure_prefill(tiny_student(), other, ids()).figures)
    assert refusal(figures).code == "export.parity"


class _SeesStaleRows(StaticDecode):
    """Forgets the mask: rows after the position are attended too."""

    def compute(
        self, input_ids: Tensor, position: Tensor, caches: Caches
    ) -> tuple[Tensor, Tensor, Tensor]:
        everything = torch.full_like(self.rows, -1)
        rows, self.rows = self.rows, everything
        try:
            # Nothing equals the position, so write here, with the true rows.
            logits, *_ = super().compute(input_ids, position, caches)
        finally:
            self.rows = rows
        _, keys, values = super().compute(input_ids, position, caches)
        return logits, keys, values


class _WritesOneRowLate(StaticDecode):
    """Writes row position + 1, so the token does not see itself."""

    def compute(
        self, input_ids: Tensor, position: Tensor, caches: Caches
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits, keys, values = super().compute(input_ids, position, caches)
        return logits, keys.roll(1, dims=2), values.roll(1, dims=2)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        (_SeesStaleRows, "causality.max_abs_change"),
        (_WritesOneRowLate, "prefill_decode.max_abs"),
    ],
)
def test_a_decoder_that_minds_its_state_wrongly_is_refused(
    kind: type[StaticDecode], metric: str
) -> None:
    figures = measure_decode(tiny_student(), decode(kind), ids()).figures
    assert refusal({metric: figures[metric]}).code == f"export.{metric.partition('.')[0]}"


def test_a_figure_that_is_not_a_number_is_beyond_every_tolerance() -> None:
    refused = refusal({"parity.max_abs": math.nan, "parity.top1_agreement": 1.0})
    assert "parity.max_abs nan" in refused.message
    assert "top1_agreement 1" in refused.message


@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_an_archive_of_other_weights_differs_from_the_graph(mode: str) -> None:
    def program(seed: int) -> torch.export.ExportedProgram:
        weights = tiny_student(seed=seed).state_dict()
        token = torch.zeros(1, 1, dtype=torch.int32)
        if mode == "prefill":
            graph = StaticPrefill(tiny_architecture(), weights, LENGTH)
            return archive.export(graph, (torch.zeros(1, LENGTH, dtype=torch.int32),))
        return archive.export(
            StaticDecode(tiny_architecture(), weights, LENGTH),
            (token, torch.zeros(1, dtype=torch.int32)),
        )

    graph: StaticPrefill | StaticDecode = prefill() if mode == "prefill" else decode()
    tokens: Sequence[int] = ids()
    assert measure_archive(program(5), graph, tokens) == 0
    assert measure_archive(program(6), graph, tokens) > 0.1
