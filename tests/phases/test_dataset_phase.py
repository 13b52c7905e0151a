"""The dataset phase as a whole: what it publishes, what it leaves out, what a kill costs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stillhouse.phases import dataset
from stillhouse.phases.contract import Context
from stillhouse.phases.data.records import (
    SPLITS,
    CacheRow,
    Message,
    Record,
    content_id,
    read_cache,
    read_cache_header,
    read_header,
    read_split,
    write_cache,
    write_split,
)
from stillhouse.phases.dataset.measure import measure
from stillhouse.phases.teachers import ChatTokenizer, LocalTeacher, Passage
from stillhouse.schemas.artifact import Product
from stillhouse.schemas.errors import PhaseError, StillError
from stillhouse.schemas.recipe import DatasetSection, Recipe, Source, TeacherSection

from . import dataset_parts as parts
from .gguf_parts import write_gguf

SPLIT = {"train": 8, "held_out": 3, "evaluation": 3}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts.write_teacher(tmp_path_factory.mktemp("teacher") / "model")


def sources(folder: Path, *more: dict[str, Any], count: int = 20) -> list[dict[str, Any]]:
    lines = [parts.weather_line(n) for n in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    path = parts.write_lines(folder / "questions.jsonl", [*lines, *more])
    return [{"format": "jsonl", "questions": str(path)}]


def context(folder: Path, teacher: Path, *more: dict[str, Any], **changes: Any) -> Context:
    section: dict[str, Any] = {"splits": SPLIT} | changes
    count = section.pop("count", 20)
    return parts.a_context(folder, teacher, sources(folder, *more, count=count), **section)


def by_role(products: tuple[Product, ...]) -> dict[str, Product]:
    return {product.role: product for product in products}


def figures(products: tuple[Product, ...]) -> dict[str, float]:
    facts = by_role(products)["report"].facts
    return {m["name"]: m["value"] for m in facts["metrics"]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    """A folder in which the phase ran once."""
    folder = tmp_path_factory.mktemp("built")
    dataset.run(context(folder, teacher))
    return folder / "work"


# --- what is published ----------------------------------------------------------------------------


def test_the_splits_are_as_asked_and_share_nothing(built: Path) -> None:
    splits = {split: read_split(built / "dataset", split) for split in SPLITS}
    assert {split: len(records) for split, records in splits.items()} == SPLIT
    assert read_header(built / "dataset").counts == SPLIT
    names = [name for records in splits.values() for r in records for name in r.functions]
    assert len(names) == len(set(names)) == 14


def test_a_record_is_its_prompt_its_answer_and_an_eos(built: Path, teacher: Path) -> None:
    tokenizer = ChatTokenizer.load(teacher)
    for record in read_split(built / "dataset", "train"):
        prompt, answer = (
            record.token_ids[: record.answer_start],
            record.token_ids[record.answer_start :],
        )
        assert tokenizer.decode(prompt) == record.prompt
        assert tokenizer.decode(answer) == record.answer + "<|end|>"
        assert record.prompt.endswith("<|assistant|>")
        assert json.loads(record.answer)["name"] == record.functions[0]


def test_every_scored_record_has_the_teachers_row(built: Path, teacher: Path) -> None:
    model = LocalTeacher(teacher, digest="0" * 64)
    for split in ("train", "held_out"):
        rows = read_cache(built / "teacher_cache", split)
        for record in read_split(built / "dataset", split):
            passage = Passage(token_ids=record.token_ids, answer_start=record.answer_start)
            (expected,) = model.score([passage], 8)
            found = rows[record.id]
            assert found.n == record.answer_length
            assert (found.top_ids == expected.top_ids).all()
            assert abs(found.top_logprobs - expected.top_logprobs).max() < 0.02
    assert not (built / "teacher_cache" / "evaluation.parquet").exists()
    assert read_cache_header(built / "teacher_cache").k == 8


def test_the_report_says_that_nothing_is_wrong(tmp_path: Path, teacher: Path) -> None:
    found = figures(dataset.run(context(tmp_path, teacher)))
    for name in (
        "schema.errors",
        "duplicates",
        "answers.empty",
        "answers.truncated",
        "leakage.content",
        "leakage.functions",
        "privacy.email",
        "privacy.phone",
        "privacy.uuid",
        "privacy.foreign_hosts",
        "cache.missing",
    ):
        assert found[name] == 0, name
    assert found["left_out.surplus"] == 6
    assert [found[f"examples.{s}"] for s in SPLITS] == [8, 3, 3]
    assert found["slots.evaluation"] == 3


def test_the_products_are_what_the_catalog_promises(tmp_path: Path, teacher: Path) -> None:
    given = context(tmp_path, teacher)
    products = by_role(dataset.run(given))
    assert {(p.role, p.kind) for p in products.values()} == {
        (made.role, made.kind) for made in dataset.SPEC.makes
    }
    assert products["teacher_model"].digest == given.one("teacher").digest
    assert products["report"].facts["subject"] == products["dataset"].digest


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, teacher: Path) -> None:
    one, two = (dataset.run(context(tmp_path / name, teacher)) for name in ("one", "two"))
    assert [p.digest for p in one] == [p.digest for p in two]


def test_the_order_of_the_lines_changes_no_record(tmp_path: Path, teacher: Path) -> None:
    lines = [parts.weather_line(n) for n in range(20)]
    found = []
    for place, order in enumerate((lines, lines[::-1])):
        path = parts.write_lines(tmp_path / f"{place}.jsonl", order)
        given = parts.a_context(
            tmp_path / str(place),
            teacher,
            [{"format": "jsonl", "questions": str(path)}],
            splits=SPLIT,
        )
        found.append(by_role(dataset.run(given))["dataset"].digest)
    assert found[0] == found[1]


def test_a_token_that_the_model_does_not_have_leaves_its_example_out(
    tmp_path: Path, teacher: Path
) -> None:
    """Transformers adds `<|endoftext|>` to every BPE tokenizer that it makes from a GGUF file."""
    file = write_gguf(tmp_path / "model.gguf", teacher)
    odd = [
        {"prompt": "Is this <|endoftext|>?", "answer": "yes"},
        {"prompt": "Is this an end?", "answer": "<|endoftext|>"},
    ]
    found = figures(dataset.run(context(tmp_path / "gguf", file, *odd)))
    assert found["left_out.schema"] == 2


def test_a_gguf_teacher_is_published_as_a_folder(tmp_path: Path, teacher: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", teacher)
    from_file = by_role(dataset.run(context(tmp_path / "gguf", file)))
    folder = tmp_path / "gguf" / "work" / "teacher_model"
    assert (folder / "model.safetensors").is_file()
    assert from_file["teacher_model"].form == "tree"
    assert len(read_split(tmp_path / "gguf" / "work" / "dataset", "train")) == 8


# --- what is left out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "why", "count"),
    [
        ({"nonsense": 1}, "schema", 1),
        ({"prompt": "Hi there", "answer": "yes <|end|> no"}, "schema", 1),
        (parts.weather_line(3), "duplicates", 1),
        ({"prompt": "Write to alice@example.com", "answer": "yes"}, "privacy", 1),
        ({"prompt": "Who?", "answer": "Call 415-555-0132"}, "privacy", 1),
        ({"prompt": "Hi there", "answer": " \n"}, "empty", 1),
        ({"prompt": "Hi there"}, "empty", 1),
        ({"prompt": "Hi there", "answer": "long " * 300}, "too_long", 1),
        ({"prompt": "long " * 300, "answer": "yes"}, "too_long", 1),
    ],
)
def test_an_unusable_example_is_left_out_and_counted(
    tmp_path: Path, teacher: Path, more: dict[str, Any], why: str, count: int
) -> None:
    found = figures(dataset.run(context(tmp_path, teacher, more)))
    assert found[f"left_out.{why}"] == count
    assert sum(n for name, n in found.items() if name.startswith("left_out.")) == count + 6


def test_examples_that_share_a_function_stay_together(tmp_path: Path, teacher: Path) -> None:
    family = [
        parts.weather_line(n, function="shared", prompt=f"Which city {n}?") for n in range(30, 35)
    ]
    dataset.run(context(tmp_path, teacher, *family, count=9))
    where = [
        split
        for split in SPLITS
        for r in read_split(tmp_path / "work" / "dataset", split)
        if "shared" in r.functions
    ]
    assert where == ["train"] * 5


def test_too_few_examples_say_how_many_and_why(tmp_path: Path, teacher: Path) -> None:
    with pytest.raises(PhaseError) as refused:
        dataset.run(context(tmp_path, teacher, {"prompt": "Hi"}, {"oops": 1}, count=6))
    message = refused.value.message
    assert "6 usable ones make 6 groups" in message
    assert "schema 1, empty 1" in message
    assert "line 8: oops" in message
    assert refused.value.code == "dataset.too_few"


def test_one_function_for_all_cannot_be_split(tmp_path: Path, teacher: Path) -> None:
    lines = [parts.weather_line(n, function="only") for n in range(20)]
    with pytest.raises(PhaseError, match=r"evaluation 0 of 3.*the largest has 20"):
        dataset.run(context(tmp_path, teacher, *lines, count=0))


# --- answers of the teacher -----------------------------------------------------------------------


def test_the_teachers_own_answers_are_its_and_repeat(tmp_path: Path, teacher: Path) -> None:
    """A random model rarely stops, so any token may be its last."""
    hot = {"answers": "generated", "temperature": 3.0, "max_new_tokens": 100}
    wide = {**hot, "splits": {"train": 2, "held_out": 1, "evaluation": 1}, "count": 40}
    one, two = (dataset.run(context(tmp_path / n, teacher, **wide)) for n in ("one", "two"))
    assert [p.digest for p in one] == [p.digest for p in two]
    found = figures(one)
    assert found["left_out.truncated"] > 0
    assert found["teacher.generated_json_validity"] == 0
    assert found["answers.truncated"] == 0
    records = read_split(tmp_path / "one" / "work" / "dataset", "train")
    assert all(parts.weather_line(0)["answer"] not in r.answer for r in records)
    assert read_header(tmp_path / "one" / "work" / "dataset").answers == "generated"


# --- kills ----------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.phases.test_dataset_phase import killed_build
killed_build(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
"""


def killed_build(folder: Path, teacher: Path, passage: int) -> None:
    """Run the phase and die, by SIGKILL, while the given passage is being scored."""
    import os

    original, seen = LocalTeacher._logits, iter(range(1, 1000))

    def dying(self: LocalTeacher, asked: Passage) -> Any:
        if next(seen) == passage:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, asked)

    pytest.MonkeyPatch().setattr(LocalTeacher, "_logits", dying)
    dataset.run(context(folder, teacher))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Passage]:
    """Every passage that the teacher scores from now on."""
    asked: list[Passage] = []
    original = LocalTeacher._logits

    def counting(self: LocalTeacher, passage: Passage) -> Any:
        asked.append(passage)
        return original(self, passage)

    monkeypatch.setattr(LocalTeacher, "_logits", counting)
    return asked


def test_a_kill_loses_the_record_in_flight_and_no_other(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, root, str(tmp_path / "killed"), str(teacher), "6"],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    asked = counted(monkeypatch)
    resumed = dataset.run(context(tmp_path / "killed", teacher))
    assert len(asked) == 11 - 5
    asked.clear()
    unharmed = dataset.run(context(tmp_path / "unharmed", teacher))
    assert len(asked) == 11
    assert [p.digest for p in resumed] == [p.digest for p in unharmed]


def test_what_was_scored_for_another_k_is_not_reused(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset.run(context(tmp_path, teacher))
    asked = counted(monkeypatch)
    dataset.run(context(tmp_path, teacher, top_k=9))
    assert len(asked) == 11


# --- the check that trusts nothing ----------------------------------------------------------------


@pytest.fixture
def trees(tmp_path: Path, teacher: Path) -> Path:
    dataset.run(context(tmp_path, teacher))
    return tmp_path / "work"


def measured(trees: Path, teacher: Path) -> dict[str, float | None]:
    section = DatasetSection.model_validate(
        {
            "sources": [{"format": "jsonl", "questions": "0"}],
            "answers": "given",
            "splits": SPLIT,
        }
    )
    found = measure(
        trees / "dataset", trees / "teacher_cache", ChatTokenizer.load(teacher), section
    )
    return {m.name: m.value for m in found}


def test_a_leak_is_seen_in_the_files(trees: Path, teacher: Path) -> None:
    train = read_split(trees / "dataset", "train")
    evaluation = read_split(trees / "dataset", "evaluation")
    write_split(trees / "dataset", "evaluation", [*evaluation, train[0]])
    found = measured(trees, teacher)
    assert found["duplicates"] == 1
    assert found["leakage.content"] == 1
    assert found["leakage.functions"] == 1


def changed(record: Record, **changes: Any) -> Record:
    """`record` with other fields, and the id of its new content."""
    other = record.model_copy(update=changes)
    new_id = content_id(other.messages, other.tools, other.answer)
    return other.model_copy(update={"id": new_id})


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"messages": (Message(role="user", content="a@b.org"),)}, "privacy.email"),
        ({"messages": (Message(role="user", content="http://b.org"),)}, "privacy.foreign_hosts"),
        ({"answer": "  "}, "answers.empty"),
        ({"answer": "something else"}, "schema.errors"),
        ({"prompt": "something else"}, "schema.errors"),
        ({"functions": ("other",)}, "schema.errors"),
    ],
)
def test_a_bad_record_is_seen_in_the_files(
    trees: Path, teacher: Path, changes: dict[str, Any], metric: str
) -> None:
    first, *rest = read_split(trees / "dataset", "evaluation")
    write_split(trees / "dataset", "evaluation", [changed(first, **changes), *rest])
    assert measured(trees, teacher)[metric] == 1


def test_an_answer_without_its_eos_is_seen_in_the_files(trees: Path, teacher: Path) -> None:
    first, *rest = read_split(trees / "dataset", "evaluation")
    cut = first.model_copy(update={"token_ids": first.token_ids[:-1]})
    write_split(trees / "dataset", "evaluation", [cut, *rest])
    assert measured(trees, teacher)["answers.truncated"] == 1


def rows_without(trees: Path, *, shorten: bool) -> Iterator[tuple[str, CacheRow]]:
    for place, (name, row) in enumerate(read_cache(trees / "teacher_cache", "train").items()):
        if place == 0 and shorten:
            yield (
                name,
                replace(
                    row,
                    n=row.n - 1,
                    top_ids=row.top_ids[1:],
                    top_logprobs=row.top_logprobs[1:],
                    tail=row.tail[1:],
                ),
            )
        elif place:
            yield name, row


@pytest.mark.parametrize("shorten", [True, False])
def test_a_missing_or_short_row_is_seen_in_the_files(
    trees: Path, teacher: Path, *, shorten: bool
) -> None:
    rows = dict(rows_without(trees, shorten=shorten))
    write_cache(trees / "teacher_cache", "train", rows, vocab_size=320)
    assert measured(trees, teacher)["cache.missing"] == 1


# --- the row of the catalog -----------------------------------------------------------------------


def test_a_file_is_named_by_its_place_and_needed_once() -> None:
    question, answers, other = ("1" * 64, "2" * 64, "3" * 64)
    section = DatasetSection.model_validate(
        {
            "sources": [
                Source(format="bfcl", questions=question, answers=answers),
                Source(format="jsonl", questions=other),
                Source(format="bfcl", questions=other, answers=answers),
            ],
            "answers": "given",
            "splits": SPLIT,
        }
    )
    recipe = Recipe(
        name="r", policy="p", teacher=TeacherSection(model="4" * 64, name="t"), dataset=section
    )
    (slot,) = dataset.SPEC.slots(recipe)
    assert [(n.role, n.digest) for n in slot.needs] == [
        ("source", question),
        ("source", answers),
        ("source", other),
        ("teacher", "4" * 64),
    ]
    named = [(s["questions"], s.get("answers")) for s in slot.params["dataset"]["sources"]]
    assert named == [("0", "1"), ("2", None), ("2", "1")]
    assert "1" * 64 not in json.dumps(slot.params)


def test_a_recipe_without_a_data_set_has_no_slot() -> None:
    assert dataset.SPEC.slots(Recipe(name="r", policy="p")) == ()


def test_the_row_names_all_that_decides_the_bytes() -> None:
    assert {"accelerate", "safetensors", "cpu", "python"} <= set(dataset.SPEC.tools)


def test_the_row_needs_no_heavy_library() -> None:
    script = (
        "import sys, stillhouse.phases.dataset; "
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0


def test_a_folder_with_code_is_no_teacher(tmp_path: Path) -> None:
    bad = parts.write_teacher(tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(StillError):
        dataset.run(context(tmp_path / "run", bad))
