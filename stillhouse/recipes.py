"""Resolving recipes: from what a user wrote to digests only.

 1. read and validate the TOML;
 2. find what every reference means, before anything is stored;
 3. publish the files that it names;
 4. record the resolved recipe, in which every reference is a complete digest.

A recipe from the inbox may name digests, tags and `kind@latest`, and nothing else. A person who can
drop a file must not be able to make the daemon read other files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from stillhouse.documents import parse, read_document
from stillhouse.publish import record, take_in
from stillhouse.registry.state.references import resolve_reference
from stillhouse.schemas import canonical
from stillhouse.schemas.artifact import Kind, Parent
from stillhouse.schemas.digest import Digest, is_digest
from stillhouse.schemas.errors import RecipeError, ReferenceError_
from stillhouse.schemas.events import ArtifactPublished, PlanRequested
from stillhouse.schemas.facts import RecipeFacts
from stillhouse.schemas.recipe import Recipe
from stillhouse.session import Session
from stillhouse.store.disk.durable import present, shown

_DIST = "dist:"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one reference means: a file to publish, or an artifact that is already there."""

    role: str
    kind: Kind
    path: Path | None = None
    digest: Digest | None = None


def read(data: bytes, *, where: str) -> Recipe:
    """A recipe from TOML (or the canonical JSON of one). Raises InputError."""
    return parse(Recipe, data, where=where, what="recipe")


def resolve(session: Session, path: Path) -> Digest:
    """Publish a recipe file with everything it names; the digest of the resolved recipe.

    Raises InputError.
    """
    recipe = read(read_document(path), where=shown(path))
    return resolve_recipe(session, recipe, base=path.parent)


def resolve_recipe(session: Session, recipe: Recipe, *, base: Path | None) -> Digest:
    """Publish a recipe; its paths start from `base`, or are refused when that is None."""
    with session.store.lease():  # nothing that the recipe names goes before it is recorded itself
        return _resolved(session, recipe, base)


def _resolved(session: Session, recipe: Recipe, base: Path | None) -> Digest:
    document = recipe.to_json()
    spots = [(spot, _find(session, spot, base)) for spot in _references(document)]
    parents = []
    for spot, found in spots:
        digest = found.digest
        if digest is None:
            assert found.path is not None  # noqa: S101  # one of the two is always set
            digest = take_in(session, found.path, found.kind).digest
        spot.set(digest)
        parents.append(Parent(role=found.role, digest=digest))
    return publish_resolved(session, Recipe.model_validate(document), tuple(parents))


def publish_resolved(session: Session, recipe: Recipe, parents: tuple[Parent, ...]) -> Digest:
    """Record a recipe in which every reference is a digest. Raises RecipeError when one is not."""
    document = recipe.to_json()
    for spot in _references(document):
        if not is_digest(spot.text):
            raise RecipeError(
                f"{spot.where} is {spot.text!r}, which is not a complete digest.",
                remedy="`still run` the recipe's file, so that what it names is looked up.",
                code="recipe.unresolved",
            )
    data = canonical.encode(document)
    with session.store.lease():
        stored = session.store.put_bytes(data)
        fact = ArtifactPublished(
            digest=stored.digest,
            kind=Kind.RECIPE,
            form="blob",
            size=len(data),
            origin="imported",
            name=recipe.name,
            parents=parents,
            facts=RecipeFacts(recipe=recipe).to_json(),
        )
        return record(session, fact).digest


def request(session: Session, plan: Digest, *, priority: int = 0) -> None:
    """Ask for a plan: it will be advanced, and its failed runs may be tried again."""
    from stillhouse.phases.catalog import CATALOG
    from stillhouse.registry.planning.provenance import Provenance

    given = Provenance(session.state(), CATALOG).given(plan)
    session.ledger.append([PlanRequested(plan=plan, priority=priority, given=given or None)])


def with_checkpoint(
    session: Session, recipe: Recipe, checkpoint: Digest, dataset: Digest | None
) -> Digest:
    """The plan in which a published checkpoint takes the place of training.

    Upstream phases do not run. Evaluation and deployment stay only when `dataset` is given: the one
    that the recipe's dataset phase made earlier.
    """
    document = recipe.to_json()
    for section in ("training", "student", "dataset"):
        document.pop(section, None)
    if dataset is None:
        for section in ("evaluation", "deployment", "teacher"):
            document.pop(section, None)
    document["given"] = {"checkpoint": checkpoint} | ({"dataset": dataset} if dataset else {})
    resolved = Recipe.model_validate(document)
    parents = [Parent(role="policy", digest=resolved.policy)]
    parents.append(Parent(role="checkpoint", digest=checkpoint))
    if dataset:
        parents.append(Parent(role="dataset", digest=dataset))
    return publish_resolved(session, resolved, tuple(parents))


# -- references ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One place in a recipe's document that holds a reference."""

    where: str
    role: str
    kind: Kind
    text: str
    set: Callable[[Digest], None]


def _references(document: dict[str, Any]) -> Iterator[Spot]:
    """Every reference of a recipe, in a fixed order."""
    yield from _spot(document, "policy", "policy", Kind.POLICY, "policy")
    yield from _spot(document.get("teacher"), "model", "teacher", Kind.TEACHER, "teacher.model")
    for place, source in enumerate(document.get("dataset", {}).get("sources", ())):
        for field in ("questions", "answers"):
            where = f"dataset.sources.{place}.{field}"
            yield from _spot(source, field, "source", Kind.SOURCE, where)
    given = document.get("given")
    yield from _spot(given, "checkpoint", "checkpoint", Kind.CHECKPOINT, "given.checkpoint")
    yield from _spot(given, "dataset", "dataset", Kind.DATASET, "given.dataset")


def _spot(
    holder: dict[str, Any] | None, field: str, role: str, kind: Kind, where: str
) -> Iterator[Spot]:
    if holder and holder.get(field) is not None:
        yield Spot(
            where=where,
            role=role,
            kind=kind,
            text=holder[field],
            set=lambda digest: holder.__setitem__(field, digest),
        )


def _find(session: Session, spot: Spot, base: Path | None) -> Found:
    text = spot.text
    if "://" in text:
        raise RecipeError(
            f"{spot.where} names a URL ({text.partition('://')[0]}://…), which is not supported.",
            remedy="Download it, and name the file or folder.",
            code="recipe.url",
        )
    if base is None:
        return _known(session, spot, None)
    if text.startswith(_DIST):
        return Found(role=spot.role, kind=spot.kind, path=_shipped(spot))
    path = base / text
    if present(path):
        return Found(role=spot.role, kind=spot.kind, path=path)
    return _known(session, spot, path)


def _known(session: Session, spot: Spot, tried: Path | None) -> Found:
    """An artifact that is already in the registry.

    tried: the path that it would be as a file, where nothing lies; None: it may not be one.
    """
    state = session.state()
    looks_like_path = spot.text not in state.tags and (
        "/" in spot.text or "\\" in spot.text or spot.text.startswith((".", _DIST))
    )
    if tried is None and looks_like_path:
        raise RecipeError(
            f"{spot.where} names a path ({spot.text!r}); a recipe from the inbox may not.",
            remedy="Publish the file and name its digest or tag, or use `still run`.",
            code="recipe.path_from_inbox",
        )
    if tried is not None and looks_like_path:
        raise RecipeError(
            f"{spot.where} names {spot.text!r}, and there is no such file: {shown(tried)}.",
            remedy="Paths are relative to the recipe's own folder.",
            code="recipe.missing_file",
        )
    try:
        digest = resolve_reference(state, spot.text, kind=spot.kind)
    except ReferenceError_ as error:
        if tried is None or error.code not in ("ref.unknown", "ref.too_short"):
            raise
        raise RecipeError(
            f"{spot.where} is {spot.text!r}: there is no such file ({shown(tried)}), and it is no "
            f"reference either. {error.message}",
            remedy=f"Paths are relative to the recipe's own folder. {error.remedy}",
            code="recipe.missing_file",
        ) from error
    return Found(role=spot.role, kind=spot.kind, digest=digest)


def _shipped(spot: Spot) -> Path:
    """The file that `dist:DISTRIBUTION/FILE` names; the distribution is never imported."""
    name, _, wanted = spot.text.removeprefix(_DIST).partition("/")
    if not name or not wanted:
        raise RecipeError(
            f"{spot.where} is {spot.text!r}, which names no file of a distribution.",
            remedy="Write it as dist:DISTRIBUTION/FILE.",
            code="recipe.bad_dist",
        )
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError as error:
        raise RecipeError(
            f"{spot.where} needs the distribution {name}, which is not installed.",
            remedy=f"Install it without its dependencies: pip install --no-deps {name}",
            code="recipe.missing_distribution",
        ) from error
    for file in files:
        if file.as_posix() == wanted:
            return Path(str(file.locate()))
    close = [f.as_posix() for f in files if f.name == Path(wanted).name]
    raise RecipeError(
        f"The distribution {name} ships no file {wanted!r}.",
        remedy=f"Did you mean {close[0]}?" if close else "Check the name.",
        code="recipe.missing_file",
    )
