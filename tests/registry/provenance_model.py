"""What stands behind a plan's filled slots, said a second time and naively, over raw event lines.

It imports nothing of the registry and reads the whole history for every question. A test holds
`Provenance` to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Line = Mapping[str, Any]
"""`seq`, `type` and `data`, as the ledger's JSON has them."""
Needs = Mapping[str, Mapping[str, Sequence[tuple[str, str | None, str | None]]]]
"""plan -> slot -> (role, the slot that the recipe names, the digest that the recipe names)."""
Row = tuple[str, str, str, bool, str, str, str | None, str | None, str | None]
"""Plan, slot, run, whether it is reused; role and digest of an input; its source."""


class Fill(NamedTuple):
    """A slot was filled: by a success of its own, or by one that is reused."""

    seq: int
    head: tuple[str, str, str, bool]
    """Plan, slot and run, and whether that is reused."""
    inputs: Sequence[Line]
    made: set[str]


Step = tuple[Fill, int]
"""A fill, and the cut up to which its sources are looked for."""


@dataclass(frozen=True)
class Model:
    """A history from its first event on, and what each plan's recipe asks for."""

    lines: Sequence[Line]
    needs: Needs

    def rows(self, plan: str, cut: int) -> set[Row]:
        """Everything behind the filled slots of a plan at a cut."""
        todo = [(fill, cut) for fill in {f.head[1]: f for f in self._fills(plan, cut)}.values()]
        rows = set[Row]()
        for place, (fill, at) in enumerate(todo):
            for given in fill.inputs if (fill, at) not in todo[:place] else ():
                role, digest = given["role"], given["digest"]
                if role != "recipe":
                    found = self._sources(fill, role, digest, at)
                    p, s, r = found[0][0].head[:3] if found else (None, None, None)
                    rows.add((*fill.head, role, digest, p, s, r))
                    todo += found
        return rows

    def _of(self, kind: str, cut: int) -> list[tuple[int, Line]]:
        return [(o["seq"], o["data"]) for o in self.lines[:cut] if o["type"] == kind]

    def _fills(self, plan: str, cut: int) -> list[Fill]:
        fills, starts, ends = list[Fill](), dict[Any, Any](), dict[Any, Any]()
        for line in self.lines[:cut]:
            kind, data = line["type"], line["data"]
            if kind == "run.started":
                starts[data["run"], data["attempt"]] = data["inputs"]
            if kind == "run.succeeded":
                made = {output["digest"] for output in data["outputs"]}
                ends[data["run"]] = starts[data["run"], data["attempt"]], made
            if kind in ("run.succeeded", "run.reused") and data["plan"] == plan:
                head = plan, data["slot"], data["run"], kind == "run.reused"
                fills.append(Fill(line["seq"], head, *ends[data["run"]]))
        return fills

    def _sources(self, fill: Fill, role: str, digest: str, cut: int) -> list[Step]:
        """One step or none."""
        plan, slot, *_ = fill.head
        for needed, source, named in self.needs[plan][slot]:
            if needed == role and source is not None:
                fills = [f for f in self._fills(plan, cut) if f.head[1] == source]
                return [(f, cut) for f in fills if digest in f.made][-1:]
            if needed == role and named == digest:
                return self._named(plan, role, digest, cut)
        return []

    def _named(self, plan: str, role: str, digest: str, cut: int) -> list[Step]:
        """The step that made what the recipe names; none where a person published it."""
        before, request = [o for o in self._of("plan.requested", cut) if o[1]["plan"] == plan][-1]
        known = [o for o in self._of("artifact.published", before) if o[1]["digest"] == digest]
        known = [o for o in known if o[1]["kind"] == role] or known
        if any(data["origin"] == "imported" for _, data in known):
            return []
        meant = (request.get("given") or {}).get(digest, known[0][0])
        run = self.lines[meant - 1]["data"]["run"]
        ends = [o for o in self._of("run.succeeded", cut) if o[0] > meant and o[1]["run"] == run]
        made = [self._fills(data["plan"], seq)[-1] for seq, data in ends]
        return [(fill, fill.seq) for fill in made if digest in fill.made][:1]
