"""Publishing by hand: a file or folder from outside becomes an artifact with origin `imported`.

Everything is checked before a byte is stored, by kind: weights without pickles, code or odd paths,
shapes that fit the architecture, policies that parse. Publishing the same thing twice records
nothing new.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.documents import parse, read_document
from stillhouse.progress import Meter, Unseen
from stillhouse.registry.state.references import check_tag_name
from stillhouse.schemas import canonical, moment
from stillhouse.schemas.artifact import PUBLISHABLE, Form, Kind, Parent
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import InputError, PhaseError, UntrustedFileError
from stillhouse.schemas.event import Event
from stillhouse.schemas.events import ArtifactPublished
from stillhouse.schemas.facts import PolicyFacts
from stillhouse.schemas.policy import Policy
from stillhouse.session import Session, clock
from stillhouse.store.disk.durable import present, reading, shown
from stillhouse.store.objects.sources import refuse_special
from stillhouse.tags import move_tag

if TYPE_CHECKING:
    from stillhouse.registry.state.state import State
    from stillhouse.store.trees.scan import Found


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What publishing came to."""

    digest: Digest
    kind: Kind
    size: int
    new: bool
    """False: this very artifact had been published before, and nothing was recorded now."""
    tag: str | None = None
    """The tag that names it now, if one was asked for."""


def parse_kind(text: str) -> Kind:
    """A kind that may be published by hand. Raises InputError."""
    allowed = ", ".join(sorted(PUBLISHABLE))
    try:
        kind = Kind(text)
    except ValueError as error:
        raise InputError(
            f"There is no artifact kind {text!r}.",
            remedy=f"Kinds that can be published: {allowed}.",
            code="publish.unknown_kind",
        ) from error
    if kind not in PUBLISHABLE:
        raise InputError(
            f"A {kind} can not be published by hand: it comes from recorded runs only.",
            remedy=f"Kinds that can be published: {allowed}.",
            code="publish.not_publishable",
        )
    return kind


def publish(
    session: Session,
    path: Path,
    kind: Kind,
    *,
    name: str | None = None,
    meta: Mapping[str, str] | None = None,
    tag: str | None = None,
    rehash: bool = False,
    meter: Meter | None = None,
) -> Publication:
    """Take in what a person names now, and let `tag` name it.

    Raises what `take_in` raises, and InputError for a name that can not be a tag.
    """
    if tag is not None:
        check_tag_name(tag)  # before anything is stored
    _require_texts(name, meta or {})
    taken = take_in(
        session, path, kind, name=name, meta=meta, renew=True, rehash=rehash, meter=meter
    )
    if tag is None:
        return taken
    move_tag(session, tag, taken.digest)
    return replace(taken, tag=tag)


def _require_texts(name: object, meta: Mapping[Any, object]) -> None:
    """A script may give anything; what is not text would be recorded as something else."""
    for what in (*meta, *meta.values(), *(() if name is None else (name,))):
        if not isinstance(what, str):
            raise InputError(
                f"The name and all of meta must be texts, and {what!r} is a {type(what).__name__}.",
                remedy="Spell it as a text: str(…).",
                code="publish.not_text",
            )


def take_in(
    session: Session,
    path: Path,
    kind: Kind,
    *,
    name: str | None = None,
    meta: Mapping[str, str] | None = None,
    parents: tuple[Parent, ...] = (),
    renew: bool = False,
    rehash: bool = False,
    while_reading: Callable[[], AbstractContextManager[None]] = nullcontext,
    meter: Meter | None = None,
) -> Publication:
    """Check, store and record one file or folder (a folder is a tree). `renew`: see `record`.

    `rehash`: read every file, also those that are known not to have changed. `while_reading`: what
    is entered while it is read, and left before anything is folded or recorded. `meter` takes how
    far reading is.

    Raises InputError or UntrustedFileError when it is not what its kind asks for; nothing is
    recorded then.
    """
    if not present(path):
        raise InputError(
            f"There is nothing at {shown(path)}.", remedy="Check the path.", code="publish.missing"
        )
    if kind is Kind.RECIPE:
        raise InputError(
            "A recipe is published with everything it names.",
            remedy="Use `still run RECIPE`, or drop it into the inbox.",
            code="publish.recipe",
        )
    if kind is Kind.POLICY:
        return publish_policy(session, path, name=name, renew=renew)
    with while_reading():
        found = _scanned(path)
        with reading(path):  # it may go away while we look
            summary = _CHECKS.get(kind, _no_check)(path)
    facts: dict[str, Any] = {"meta": dict(meta or {}), **summary}
    form: Form = "blob" if found is None else "tree"
    with session.store.lease():
        with while_reading():
            digest, size = _stored(session, path, found, rehash=rehash, meter=meter or Unseen())
        return record(
            session,
            ArtifactPublished(
                digest=digest,
                kind=kind,
                form=form,
                size=size,
                origin="imported",
                name=name or path.name,
                parents=parents,
                facts=facts,
            ),
            renew=renew,
        )


def publish_policy(
    session: Session, path: Path, *, name: str | None = None, renew: bool = False
) -> Publication:
    """Store a policy (TOML) in canonical form: layout and comments do not change its digest."""
    policy = read_policy(read_document(path), where=shown(path))
    data = canonical.encode(policy.to_json())
    with session.store.lease():
        stored = session.store.put_bytes(data)
        return record(
            session,
            ArtifactPublished(
                digest=stored.digest,
                kind=Kind.POLICY,
                form="blob",
                size=len(data),
                origin="imported",
                name=name or policy.name,
                facts=PolicyFacts(policy=policy).to_json(),
            ),
            renew=renew,
        )


def read_policy(data: bytes, *, where: str) -> Policy:
    """A policy from TOML (or the canonical JSON of one). Raises InputError."""
    return parse(Policy, data, where=where, what="policy")


def record(session: Session, fact: ArtifactPublished, *, renew: bool = False) -> Publication:
    """Append the fact unless the same publication is already recorded, and its bytes are kept.

    `renew`: a person asked for it now, so it also becomes `kind@latest` again when something else
    has been published since, and young again when garbage collection would take it for old. Not
    for files that recipes name or that lie in the inbox: these are met again and again, and what is
    met in passing must not become the latest.
    """
    state = session.state()
    known = any(_same(p.fact, fact) for p in state.artifacts.get(fact.digest, ()))
    if fact.digest in state.absent or fact.digest in state.condemned:
        known = False
    if renew and known:
        known = state.latest.get(fact.kind) == fact.digest and not _old(session, state, fact)
    if known:
        session.ledger.settle()
    new = not known and bool(
        session.ledger.append([fact], since=state.seq, unless=_publishes(fact))
    )
    return Publication(digest=fact.digest, kind=fact.kind, size=fact.size, new=new)


def _old(session: Session, state: State, fact: ArtifactPublished) -> bool:
    latest = moment.parse(state.artifacts[fact.digest][-1].ts)
    return clock() - latest >= session.config.grace


def _scanned(path: Path) -> Sequence[Found] | None:
    """What is in a folder; None for a file.

    Refuses links and special files, at the top and inside, before anything is opened. Raises
    InputError.
    """
    from stillhouse.store.trees.scan import scan

    with reading(path):
        mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        return scan(path)
    refuse_special(path, mode)
    return None


def _stored(
    session: Session,
    path: Path,
    found: Sequence[Found] | None,
    *,
    rehash: bool,
    meter: Meter,
) -> tuple[Digest, int]:
    from stillhouse.store.objects.statcache import StatCache
    from stillhouse.store.trees.trees import put_tree

    cache = StatCache(session.home.stat_cache, believe=not rehash)
    with reading(path):
        meter.of = sum(f.status.st_size for f in found) if found else path.stat().st_size
    if found is not None:
        tree = put_tree(session.store, path, cache=cache, found=found, tell=meter.add)
        return tree.digest, tree.payload
    stored = session.store.put_file(path, cache=cache, tell=meter.add)
    return stored.digest, stored.size


def _same(known: ArtifactPublished, fact: ArtifactPublished) -> bool:
    return (known.kind, known.origin, known.name) == (fact.kind, fact.origin, fact.name) and (
        known.facts == fact.facts
    )


def _publishes(fact: ArtifactPublished) -> Callable[[Event], bool]:
    def same(event: Event) -> bool:
        return (
            event.type == ArtifactPublished.TYPE
            and _same(ArtifactPublished.model_validate(event.data), fact)
            and event.data["digest"] == fact.digest
        )

    return same


# -- what each kind asks for --------------------------------------------------------------------


def _no_check(_path: Path) -> dict[str, Any]:
    return {}


def _check_checkpoint(path: Path) -> dict[str, Any]:
    from stillhouse.phases.untrusted import check_model_folder, check_student_shapes

    _require_folder(path, "checkpoint", "a Hugging Face folder with config.json and safetensors")
    found = check_model_folder(path)
    check_student_shapes(found.config, found.tensors)
    return {"model_type": found.model_type}


def _check_teacher(path: Path) -> dict[str, Any]:
    from stillhouse.phases.untrusted import check_gguf, check_model_folder

    if path.is_dir():
        return {"format": "huggingface", "model_type": check_model_folder(path).model_type}
    if path.suffix != ".gguf":
        raise UntrustedFileError(
            f"{path.name} is not a teacher: it is neither a folder nor a GGUF file.",
            remedy="Give a Hugging Face folder (config.json, safetensors) or a .gguf file.",
            code="teacher.unknown_format",
        )
    found = check_gguf(path)
    return {"format": "gguf", "architecture": found.architecture}


def _check_mlpackage(path: Path) -> dict[str, Any]:
    from stillhouse.phases.untrusted import check_mlpackage

    _require_folder(path, "mlpackage", "a .mlpackage folder")
    check_mlpackage(path)
    _check_program(path)
    return {}


def _check_program(path: Path) -> None:
    """Parse the program and read every constant: names and offsets must stay inside the package."""
    from stillhouse.phases.mil import Interpreter, Package

    try:
        package = Package.open(path)
        for function in package.functions:
            Interpreter(package, function=function).check()
    except PhaseError as error:
        raise UntrustedFileError(error.message, remedy=error.remedy, code=error.code) from error


def _check_dataset(path: Path) -> dict[str, Any]:
    from stillhouse.phases.data.records import read_header

    _require_folder(path, "dataset", "a folder with dataset.json and the splits (docs/phases.md)")
    return {"dataset": read_header(path).to_json()}


def _require_folder(path: Path, kind: str, form: str) -> None:
    if not path.is_dir():
        raise UntrustedFileError(
            f"{path.name} is not a {kind}: it is one file.",
            remedy=f"Give {form}.",
            code=f"{kind}.not_a_folder",
        )


_CHECKS: dict[Kind, Callable[[Path], dict[str, Any]]] = {
    Kind.CHECKPOINT: _check_checkpoint,
    Kind.TEACHER: _check_teacher,
    Kind.MLPACKAGE: _check_mlpackage,
    Kind.DATASET: _check_dataset,
}
