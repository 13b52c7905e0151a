"""Which runs stand behind a plan, where many runs and plans make equal bytes.

Random histories are folded up to a cut, and `Provenance` is compared with a naive model
(provenance_model.py). The examples after them say one rule each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from stillhouse.registry.planning.provenance import Provenance
from stillhouse.registry.state.state import State
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.event import GENESIS, Actor, Event
from stillhouse.schemas.events import (
    ArtifactPublished,
    Payload,
    PlanRequested,
    RunAbandoned,
    RunFailed,
    RunReused,
    RunStarted,
    RunSucceeded,
)
from stillhouse.schemas.plan import Made, Need, PhaseSpec, Slot
from stillhouse.schemas.recipe import Recipe

from .plan_world import NOW, digest
from .provenance_model import Model

LETTERS = "abcd"
"""All the bytes that there are."""
HISTORIES = 300

Bytes = Mapping[str, str]
"""role -> letter."""


def _named(role: str, slot: str, given: Digest | None) -> Need:
    if given is not None:
        return Need(role=role, digest=given)
    return Need(role=role, slot=slot, output=role)


def _dataset(recipe: Recipe) -> tuple[Slot, ...]:
    return () if recipe.given.dataset else (Slot(id="dataset", params={}, needs=()),)


def _training(recipe: Recipe) -> tuple[Slot, ...]:
    needs = [_named("dataset", "dataset", recipe.given.dataset)]
    if recipe.given.checkpoint is not None:
        needs.append(Need(role="checkpoint", digest=recipe.given.checkpoint))
    return (Slot(id="training", params={}, needs=tuple(needs)),)


def _export(recipe: Recipe) -> tuple[Slot, ...]:
    trained = _named("checkpoint", "training", None)
    other = _named("checkpoint", "training", recipe.given.checkpoint)
    return (
        Slot(id="export/prefill-8", params={}, needs=(trained,)),
        Slot(id="export/prefill-16", params={}, needs=(other,)),
    )


def _evaluation(recipe: Recipe) -> tuple[Slot, ...]:
    """A crossed recipe evaluates the other export."""
    length = 16 if recipe.name.startswith("crossed") else 8
    export = _named("export", f"export/prefill-{length}", None)
    data = _named("dataset", "dataset", recipe.given.dataset)
    return (Slot(id="evaluation", params={}, needs=(export, data)),)


def _spec(name: str, slots: Callable[[Recipe], tuple[Slot, ...]], **makes: Kind) -> PhaseSpec:
    made = tuple(Made(role=role, kind=kind) for role, kind in makes.items())
    return PhaseSpec(name=name, version=1, slots=slots, makes=made, tools=())


CATALOG = (
    _spec("dataset", _dataset, dataset=Kind.DATASET),
    _spec("training", _training, checkpoint=Kind.CHECKPOINT, report=Kind.REPORT),
    _spec("export", _export, export=Kind.EXPORT),
    _spec("evaluation", _evaluation, report=Kind.REPORT),
)


class Row(NamedTuple):
    """One input of one run behind a plan, and the slot and run that it came from."""

    plan: str
    slot: str
    run: str
    reused: bool
    role: str
    digest: str
    source_plan: str | None = None
    source_slot: str | None = None
    source_run: str | None = None


@dataclass
class History:
    """Events as a registry records them, with letters for bytes and words for plans and runs."""

    events: list[Event] = field(default_factory=list)
    slots: dict[str, dict[str, tuple[PhaseSpec, Slot]]] = field(default_factory=dict)
    """plan -> slot -> what its recipe says of it."""
    attempts: dict[str, int] = field(default_factory=dict)
    words: dict[Digest, str] = field(default_factory=dict)

    def digest(self, word: str) -> Digest:
        """The digest that stands for a word."""
        found = digest(word)
        self.words[found] = word
        return found

    def record(self, *payloads: Payload) -> int:
        """Append one batch; the seq of its last event."""
        for place, payload in enumerate(payloads, start=1):
            self.events.append(
                Event(
                    seq=len(self.events) + 1,
                    prev=GENESIS,
                    ts=NOW,
                    type=payload.TYPE,
                    v=payload.VERSION,
                    actor=Actor(user="u", host="h"),
                    batch=f"{place}/{len(payloads)}",
                    data=payload.to_json(),
                )
            )
        return len(self.events)

    def recipe(self, plan: str, given: Bytes, *, crossed: bool = False) -> None:
        """Publish a recipe; `given`: what it names as `dataset` and `checkpoint`."""
        named = {role: self.digest(letter) for role, letter in given.items()}
        name = f"crossed-{plan}" if crossed else plan
        recipe = Recipe.model_validate({"name": name, "policy": digest("policy"), "given": named})
        self.slots[plan] = {
            slot.id: (spec, slot) for spec in CATALOG for slot in spec.slots(recipe)
        }
        self._publish(plan, Kind.RECIPE, facts={"recipe": recipe.to_json()})

    def imported(self, letter: str, kind: Kind = Kind.SOURCE) -> int:
        """A person publishes bytes."""
        return self._publish(letter, kind)

    def asked(self, plan: str, **given: int) -> int:
        """Someone asks for a plan; `given`: letter -> seq of the publication that is meant."""
        meant = {self.digest(letter): seq for letter, seq in given.items()}
        return self.record(PlanRequested(plan=self.digest(plan), given=meant or None))

    def started(
        self, plan: str, slot: str, run: str, inputs: Bytes | None = None, environment: str = "e"
    ) -> RunStarted:
        """A worker starts another attempt of a run."""
        self.attempts[run] = self.attempts.get(run, 0) + 1
        spec, _ = self.slots[plan][slot]
        around = {"recipe": plan, "environment": environment}
        parents = [Parent(role=r, digest=self.digest(b)) for r, b in (inputs or {}).items()]
        parents += [
            Parent(role=r, digest=self.digest(b), circumstance=True) for r, b in around.items()
        ]
        fact = RunStarted(
            run=self.digest(f"run {run}"),
            phase=spec.name,
            phase_version=1,
            plan=self.digest(plan),
            slot=slot,
            attempt=self.attempts[run],
            inputs=tuple(parents),
            params={},
            tools={},
        )
        self.record(fact)
        return fact

    def succeeded(self, start: RunStarted, outputs: Bytes) -> int:
        """The attempt ends well and publishes what it made; the seq of its first publication."""
        kinds = {m.role: m.kind for spec in CATALOG if spec.name == start.phase for m in spec.makes}
        made = [
            ArtifactPublished(
                digest=self.digest(letter),
                kind=kinds[role],
                form="blob",
                size=1,
                origin="run",
                run=start.run,
                role=role,
                parents=start.inputs,
            )
            for role, letter in outputs.items()
        ]
        named = tuple(Parent(role=fact.role or "", digest=fact.digest) for fact in made)
        self.record(*made, RunSucceeded(**_ending(start), outputs=named, seconds=1))
        return len(self.events) - len(made)

    def broke(self, start: RunStarted) -> None:
        """The attempt fails."""
        self.record(
            RunFailed(**_ending(start), code="x", message="broke", remedy="mend", seconds=1)
        )

    def died(self, start: RunStarted) -> None:
        """The process of the attempt dies."""
        self.record(RunAbandoned(**_ending(start), reason="killed"))

    def ran(self, plan: str, slot: str, run: str, made: str, **inputs: str) -> int:
        """A run starts and succeeds; the seq of the publication of its first product.

        `made`: a letter for each of its products; the last stands for those that are left.
        """
        spec, _ = self.slots[plan][slot]
        letters = made.ljust(len(spec.makes), made[-1])
        start = self.started(plan, slot, run, inputs)
        return self.succeeded(start, {m.role: b for m, b in zip(spec.makes, letters, strict=True)})

    def reused(self, plan: str, slot: str, run: str) -> int:
        """A slot is filled by a run that succeeded earlier."""
        spec, _ = self.slots[plan][slot]
        return self.record(
            RunReused(
                run=self.digest(f"run {run}"), phase=spec.name, plan=self.digest(plan), slot=slot
            )
        )

    def _publish(self, word: str, kind: Kind, **facts: Any) -> int:
        return self.record(
            ArtifactPublished(
                digest=self.digest(word), kind=kind, form="blob", size=1, origin="imported", **facts
            )
        )

    @property
    def model(self) -> Model:
        """The model over the events as lines, and the recipes as plain data."""
        lines = [event.to_json() for event in self.events]
        needs = {
            digest(plan): {
                name: [(need.role, need.slot, need.digest) for need in slot.needs]
                for name, (_, slot) in slots.items()
            }
            for plan, slots in self.slots.items()
        }
        return Model(lines, needs)

    def folded(self, cut: int | None = None) -> State:
        """The state up to a cut."""
        return State().apply_all(self.events[:cut])

    def rows(self, state: State, plan: str, cut: int) -> set[Row]:
        """What `Provenance` answers from a state."""
        provenance = Provenance(state, CATALOG)
        steps = [provenance.step(digest(plan), slot, cut) for slot in self.slots[plan]]
        behind = provenance.behind(step for step in steps if step is not None)
        return {
            Row(
                step.plan,
                step.slot,
                step.run,
                step.fill.reused,
                link.role,
                link.digest,
                link.source.plan if link.source else None,
                link.source.slot if link.source else None,
                link.source.run if link.source else None,
            )
            for step, links in behind.items()
            for link in links
        }

    def say(self, rows: Iterable[Row]) -> set[str]:
        """Rows in words: `plan slot run: role bytes <- plan slot run`."""
        said = set()
        for row in rows:
            if row.role == "environment":
                continue
            run = self.words[row.run].removeprefix("run ") + ("*" if row.reused else "")
            text = f"{self.words[row.plan]} {row.slot} {run}: {row.role} {self.words[row.digest]}"
            if row.source_plan and row.source_run:
                source = self.words[row.source_run].removeprefix("run ")
                text += f" <- {self.words[row.source_plan]} {row.source_slot} {source}"
            said.add(text)
        return said

    def behind(self, plan: str, cut: int | None = None) -> set[str]:
        """What stands behind a plan, in words; the model says the same."""
        at = len(self.events) if cut is None else cut
        rows = self.rows(self.folded(cut), plan, at)
        assert self.say(rows) == self.say(map(Row._make, self.model.rows(digest(plan), at)))
        return self.say(rows)


def _ending(start: RunStarted) -> dict[str, Any]:
    return {
        "run": start.run,
        "phase": start.phase,
        "plan": start.plan,
        "slot": start.slot,
        "attempt": start.attempt,
    }


@dataclass
class Chance:
    """A well-formed history by chance.

    A run is named by its phase, its inputs by role and a salt, as its key would be. So plans meet
    in one run, and slots of one plan do. A run may succeed twice, and make other bytes then.
    """

    seed: int
    history: History = field(default_factory=History)
    given: dict[str, set[str]] = field(default_factory=dict)
    """plan -> letters that its recipe names."""
    published: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)
    """letter -> where it was published, and whether by a run."""
    wanted: list[str] = field(default_factory=list)
    """Plans, once for each request."""
    going: dict[str, RunStarted] = field(default_factory=dict)
    """run -> its attempt without an end."""
    done: dict[str, Bytes] = field(default_factory=dict)
    """run -> what its latest success made."""
    filled: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """(plan, slot) -> the runs that filled it, oldest first."""
    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    """run -> the plan and slot of its latest start."""

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        random = self.random
        for number in range(random.randint(2, 4)):
            plan = f"plan-{number}"
            given = {
                role: random.choice(LETTERS)
                for role in ("dataset", "checkpoint")
                if number and random.random() < 0.6
            }
            self.history.recipe(plan, given, crossed=random.random() < 0.5)
            self.given[plan] = set(given.values())
        self.history.asked("plan-0")
        self.wanted.append("plan-0")
        imports = random.choice((0, 0, 1, 4))
        moves = (self.import_, self.ask, self.work, self.end)
        for _ in range(random.randint(20, 100)):
            random.choices(moves, weights=(imports, 5, 30, 24))[0]()

    def import_(self) -> None:
        letter = self.random.choice(LETTERS)
        kind = self.random.choice((Kind.DATASET, Kind.CHECKPOINT, Kind.SOURCE, Kind.FIXTURES))
        self.published.setdefault(letter, []).append((self.history.imported(letter, kind), False))

    def ask(self) -> None:
        plan = self.random.choice(list(self.given))
        if not self.given[plan] <= self.published.keys():
            return
        meant = {}
        for letter in sorted(self.given[plan]):
            seqs = [seq for seq, by_run in self.published[letter] if by_run]
            if seqs and self.random.random() < 0.6:
                meant[letter] = self.random.choice(seqs)
        self.history.asked(plan, **meant)
        self.wanted.append(plan)

    def work(self) -> None:
        """Start a run for some slot whose needs are there, or reuse one."""
        if not self.wanted:
            return
        plan = self.random.choice(self.wanted)
        slot = self.random.choice(list(self.history.slots[plan]))
        inputs = self._inputs(plan, slot)
        if inputs is None:
            return
        phase = self.history.slots[plan][slot][0].name
        run = f"{phase} {inputs} {self.random.choice('xxy')}"
        if run in self.done and self.random.random() < 0.8:
            self.history.reused(plan, slot, run)
            self.filled.setdefault((plan, slot), []).append(run)
        elif run not in self.going:
            around = self.random.choice(LETTERS)
            self.going[run] = self.history.started(plan, slot, run, inputs, around)
            self.places[run] = plan, slot

    def end(self) -> None:
        """End some attempt that goes on."""
        if not self.going:
            return
        run = self.random.choice(list(self.going))
        start = self.going.pop(run)
        match self.random.choices(("succeeded", "broke", "died"), weights=(8, 1, 1))[0]:
            case "succeeded":
                spec, _ = self.history.slots[self.places[run][0]][start.slot]
                made = {m.role: self.random.choice(LETTERS) for m in spec.makes}
                first = self.history.succeeded(start, made)
                for seq, letter in enumerate(made.values(), start=first):
                    self.published.setdefault(letter, []).append((seq, True))
                self.done[run] = made
                self.filled.setdefault(self.places[run], []).append(run)
            case "broke":
                self.history.broke(start)
            case _:
                self.history.died(start)

    def _inputs(self, plan: str, slot: str) -> dict[str, str] | None:
        """What the slot's needs are now."""
        inputs = {}
        for need in self.history.slots[plan][slot][1].needs:
            if need.slot is None:
                inputs[need.role] = self.history.words[need.digest or ""]
            elif runs := self.filled.get((plan, need.slot)):
                inputs[need.role] = self.done[runs[-1]][need.output or ""]
            else:
                return None
        return inputs


def _differences(history: History, seed: int) -> Iterator[tuple[str, Row]]:
    """Every row at some cuts, and by whom it is said: `both`, `model`, `code` or `later`.

    `later`: the state was folded beyond the cut, and then answers otherwise.
    """
    random, end, model = Random(seed), len(history.events), history.model
    cuts = sorted({random.randint(len(history.slots), end), random.randint(end // 2, end), end})
    whole, state = history.folded(), State()
    for cut in cuts:
        state.apply_all(history.events[state.seq : cut])
        for plan in history.slots:
            expected = {Row._make(row) for row in model.rows(digest(plan), cut)}
            found = history.rows(state, plan, cut)
            yield from (("both", row) for row in expected & found)
            yield from (("model", row) for row in expected - found)
            yield from (("code", row) for row in found - expected)
            yield from (("later", row) for row in found ^ history.rows(whole, plan, cut))


def test_the_model_and_provenance_agree_on_histories_of_equal_bytes() -> None:
    met = Counter[str]()
    for seed in range(HISTORIES):
        history = Chance(seed).history
        wrong: dict[str, set[str]] = {}
        for said_by, row in _differences(history, seed):
            if said_by != "both":
                wrong.setdefault(said_by, set()).update(history.say((row,)))
            met["row"] += 1
            met["reused"] += row.reused
            met["traced"] += row.source_run is not None
            met["traced to another plan"] += row.source_plan not in (None, row.plan)
        assert not wrong, f"seed {seed}: {wrong}"
    assert min(met["reused"], met["traced"]) > 1000, met
    assert met["traced to another plan"] > 200, met


def _pair() -> History:
    """Two plans of one wiring, both asked for."""
    history = History()
    for plan in ("other", "mine"):
        history.recipe(plan, {})
        history.asked(plan)
    return history


def test_equal_bytes_of_another_plan_do_not_lend_it_their_history() -> None:
    history = _pair()
    history.ran("other", "dataset", "d1", "a")
    history.ran("other", "training", "t1", "c", dataset="a")
    history.ran("mine", "dataset", "d2", "b")
    history.ran("mine", "training", "t2", "c", dataset="b")
    history.ran("mine", "export/prefill-8", "e", "x", checkpoint="c")
    assert history.behind("mine") == {
        "mine training t2: dataset b <- mine dataset d2",
        "mine export/prefill-8 e: checkpoint c <- mine training t2",
    }


def test_a_reused_run_brings_no_history_of_the_plan_that_made_it() -> None:
    history = _pair()
    history.ran("other", "dataset", "d1", "a")
    history.ran("other", "training", "t", "c", dataset="a")
    history.ran("mine", "dataset", "d2", "a")
    history.reused("mine", "training", "t")
    assert history.behind("mine") == {"mine training t*: dataset a <- mine dataset d2"}
    assert history.behind("other") == {"other training t: dataset a <- other dataset d1"}


def test_a_reused_run_counts_with_the_slot_that_it_fills_now() -> None:
    history = _pair()
    history.ran("mine", "training", "t", "c", dataset="a")
    history.ran("mine", "export/prefill-8", "e", "x", checkpoint="c")
    history.reused("mine", "export/prefill-16", "e")
    assert history.behind("mine") == {
        "mine training t: dataset a",
        "mine export/prefill-8 e: checkpoint c <- mine training t",
        "mine export/prefill-16 e*: checkpoint c <- mine training t",
    }


def test_an_input_came_from_the_last_fill_that_holds_it() -> None:
    history = _pair()
    history.ran("mine", "dataset", "d1", "a")
    history.ran("mine", "dataset", "d2", "a")
    history.ran("mine", "training", "t", "c", dataset="a")
    history.ran("mine", "dataset", "d3", "b")
    assert history.behind("mine") == {"mine training t: dataset a <- mine dataset d2"}


def test_what_comes_after_the_cut_changes_no_answer() -> None:
    history = _pair()
    history.ran("mine", "dataset", "d1", "a")
    history.ran("mine", "training", "t", "c", dataset="a")
    cut = len(history.events)
    before = history.behind("mine")
    history.ran("mine", "dataset", "d2", "a")
    history.ran("mine", "training", "t2", "c", dataset="a")
    assert history.say(history.rows(history.folded(), "mine", cut)) == before
    assert before == {"mine training t: dataset a <- mine dataset d1"}


def test_the_attempt_that_succeeded_counts_with_its_own_plan() -> None:
    history = _pair()
    history.ran("other", "dataset", "d1", "a")
    history.ran("mine", "dataset", "d2", "a")
    history.broke(history.started("other", "training", "t", {"dataset": "a"}))
    history.ran("mine", "training", "t", "c", dataset="a")
    assert history.behind("mine") == {"mine training t: dataset a <- mine dataset d2"}
    assert history.behind("other") == set()


def test_a_circumstance_ends_the_walk_and_the_recipe_is_left_out() -> None:
    history = _pair()
    history.ran("mine", "dataset", "d", "a")
    start = history.started("mine", "training", "t", {"dataset": "a"}, environment="a")
    history.succeeded(start, {"checkpoint": "c", "report": "r"})
    rows = history.rows(history.folded(), "mine", len(history.events))
    assert {(row.role, row.source_slot) for row in rows if row.slot == "training"} == {
        ("dataset", "dataset"),
        ("environment", None),
    }


def _given(**given: str) -> History:
    """A plan whose recipe names bytes, not yet asked for, and another that may make them."""
    history = History()
    history.recipe("other", {})
    history.asked("other")
    history.recipe("mine", given)
    return history


def test_given_bytes_of_a_person_end_the_walk_though_a_run_made_them_first() -> None:
    history = _given(dataset="c")
    history.ran("other", "dataset", "d2", "c")
    history.imported("c", Kind.DATASET)
    history.asked("mine")
    history.ran("mine", "training", "t2", "x", dataset="c")
    assert history.behind("mine") == {"mine training t2: dataset c"}


def test_given_bytes_that_a_person_publishes_after_the_request_stay_those_of_a_run() -> None:
    history = _given(dataset="c")
    history.ran("other", "dataset", "d2", "c")
    history.asked("mine")
    history.imported("c", Kind.DATASET)
    history.ran("mine", "training", "t2", "x", dataset="c")
    assert history.behind("mine") == {"mine training t2: dataset c <- other dataset d2"}


def test_a_publication_of_another_kind_does_not_say_that_a_person_gave_the_bytes() -> None:
    history = _given(dataset="c")
    history.imported("c", Kind.FIXTURES)
    history.ran("other", "dataset", "d2", "c")
    history.asked("mine")
    history.ran("mine", "training", "t2", "x", dataset="c")
    assert history.behind("mine") == {"mine training t2: dataset c <- other dataset d2"}


def test_the_first_publication_is_meant_where_the_request_names_none() -> None:
    history = _given(dataset="c")
    history.ran("other", "dataset", "d2", "c")
    history.ran("other", "dataset", "d3", "c")
    history.asked("mine")
    history.ran("mine", "training", "t2", "x", dataset="c")
    assert history.behind("mine") == {"mine training t2: dataset c <- other dataset d2"}


def test_the_last_request_says_which_publication_is_meant() -> None:
    history = _given(dataset="c")
    history.ran("other", "dataset", "d2", "c")
    history.asked("mine", c=history.ran("other", "dataset", "d3", "c"))
    history.ran("mine", "training", "t2", "x", dataset="c")
    cut = len(history.events)
    history.asked("mine", c=history.ran("other", "dataset", "d4", "c"))
    assert history.behind("mine", cut) == {"mine training t2: dataset c <- other dataset d3"}
    assert history.behind("mine") == {"mine training t2: dataset c <- other dataset d4"}


def test_the_walk_goes_on_in_the_plan_that_made_given_bytes_as_it_stood_then() -> None:
    history = _given(checkpoint="c")
    history.ran("other", "dataset", "d1", "a")
    history.ran("other", "training", "t", "cr", dataset="a")
    history.ran("other", "dataset", "d2", "a")
    history.asked("mine")
    history.ran("mine", "export/prefill-16", "e", "x", checkpoint="c")
    assert history.behind("mine") == {
        "mine export/prefill-16 e: checkpoint c <- other training t",
        "other training t: dataset a <- other dataset d1",
    }


def test_given_bytes_of_a_reused_run_lead_to_the_plan_that_executed_it() -> None:
    history = _given(checkpoint="c")
    history.recipe("third", {})
    history.asked("third")
    history.ran("other", "dataset", "d1", "a")
    history.ran("other", "training", "t", "cr", dataset="a")
    history.ran("third", "dataset", "d2", "a")
    history.reused("third", "training", "t")
    history.asked("mine")
    history.ran("mine", "export/prefill-16", "e", "x", checkpoint="c")
    assert history.behind("mine") == {
        "mine export/prefill-16 e: checkpoint c <- other training t",
        "other training t: dataset a <- other dataset d1",
    }


def test_a_run_that_succeeded_twice_counts_as_it_stood_when_it_made_what_is_meant() -> None:
    history = _given(checkpoint="c")
    history.ran("other", "dataset", "d1", "a")
    history.ran("other", "training", "t", "cr", dataset="a")
    history.ran("other", "dataset", "d2", "a")
    history.asked("mine", c=history.ran("other", "training", "t", "cr", dataset="a"))
    history.ran("mine", "export/prefill-16", "e", "x", checkpoint="c")
    assert history.behind("mine") == {
        "mine export/prefill-16 e: checkpoint c <- other training t",
        "other training t: dataset a <- other dataset d2",
    }


def test_a_step_that_is_met_at_two_cuts_has_the_sources_of_both() -> None:
    history = _given(dataset="x", checkpoint="c")
    history.ran("other", "dataset", "d1", "a")
    history.ran("other", "training", "t", "cr", dataset="a")
    history.ran("other", "dataset", "d2", "a")
    history.ran("other", "export/prefill-8", "e", "x", checkpoint="c")
    history.asked("mine")
    history.ran("mine", "training", "u", "y", dataset="x", checkpoint="c")
    assert history.behind("mine") == {
        "mine training u: dataset x <- other export/prefill-8 e",
        "mine training u: checkpoint c <- other training t",
        "other export/prefill-8 e: checkpoint c <- other training t",
        "other training t: dataset a <- other dataset d1",
        "other training t: dataset a <- other dataset d2",
    }
