"""The verb `repair`: good bytes in the place of missing or damaged ones, proved by their digests.

From a file, a folder or another registry that is given, else by repeating the runs that made it
(cli/verbs/rewind.py). Rules: what is given is hashed before anything here is touched, and other
bytes than the recorded ones change nothing; a damaged object is moved to `damaged/` and is removed
only when the good one is durable; at the end every object is read again.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stillhouse.cli.arguments import Json, Ref, session_of
from stillhouse.cli.views import render
from stillhouse.registry.home import FOLDER, Home
from stillhouse.registry.keeping.recovery import runs_to
from stillhouse.registry.state.references import form_of, resolve_reference
from stillhouse.rewind import Repeated, Watcher, remake, tools_changed_since
from stillhouse.schemas.digest import SHORT, Digest
from stillhouse.schemas.errors import InputError, IntegrityError
from stillhouse.schemas.events import ArtifactRestored
from stillhouse.stock import alone
from stillhouse.store.disk.durable import present, reading, shown, sync_folder, writing
from stillhouse.store.disk.hashing import hash_bytes, hash_file
from stillhouse.store.objects.local import BlobStore
from stillhouse.store.objects.paths import condemned_path, object_path
from stillhouse.store.objects.sources import refuse_special
from stillhouse.store.trees.scan import scan
from stillhouse.store.trees.trees import Entry, parse_tree, read_tree, tree_bytes

if TYPE_CHECKING:
    from stillhouse.session import Session

How = Literal["run", "file", "registry"]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What is wrong with the objects of one artifact."""

    missing: tuple[Digest, ...]
    corrupt: tuple[Digest, ...]

    @property
    def objects(self) -> tuple[Digest, ...]:
        """All that are not as they should be."""
        return (*self.missing, *self.corrupt)


def repair(
    context: typer.Context,
    ref: Ref,
    *,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PATH", help="A copy: a file, a folder, or another registry."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Get the bytes of an artifact back.

    Those that are missing or damaged come from a copy, or are made again by the run that made them.
    """
    session = session_of(context)
    state = session.state()
    digest = resolve_reference(state, ref)
    form = form_of(state, digest)
    with session.store.lease():
        before = examine(session.store, _objects(session.store, digest, form))
        if not before.objects and digest not in state.absent:
            how = None
        elif not before.objects:  # given up, and nobody has taken it away yet
            how = _from_copy(session, digest, session.home.root)
        elif source is not None:
            how = _from_copy(session, digest, source)
        else:
            how = _by_runs(session, digest)
    _forget_damaged(session.home, _objects(session.store, digest, form))
    _tell(digest, before, how, as_json=as_json)


def examine(store: BlobStore, objects: Iterable[Digest]) -> Damage:
    """Read every byte of these objects."""
    missing: list[Digest] = []
    corrupt: list[Digest] = []
    for digest in objects:
        try:
            store.verify(digest)
        except IntegrityError as error:
            (missing if error.code == "store.missing" else corrupt).append(digest)
    return Damage(missing=tuple(missing), corrupt=tuple(corrupt))


def _objects(store: BlobStore, digest: Digest, form: str) -> tuple[Digest, ...]:
    """What an artifact consists of; only its list of files where that can not be read."""
    if form == "blob":
        return (digest,)
    try:
        entries = read_tree(store, digest)
    except IntegrityError:
        return (digest,)
    return (digest, *sorted({entry.digest for entry in entries} - {digest}))


# -- from a copy --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """What was given, hashed: where the bytes of each object are."""

    how: How
    files: Mapping[Digest, Path]
    tree: bytes | None
    """The list of files of a folder."""


def _from_copy(session: Session, digest: Digest, source: Path) -> How:
    state = session.state()
    form = form_of(state, digest)
    copy = _copy_at(source, digest, form)
    objects = {*copy.files, digest}
    damage = examine(session.store, objects)
    with _set_aside(session.home, damage.corrupt):
        # What was given up may be swept at any time, so all of it is put again.
        for needed in objects if digest in state.absent else damage.objects:
            if needed in copy.files:
                _take(session.store, needed, copy.files[needed], source)
        if copy.tree is not None:
            session.store.put_bytes(copy.tree)
        _prove(session.store, digest, form)
    session.ledger.append([ArtifactRestored(digest=digest, how=copy.how)])
    return copy.how


def _copy_at(source: Path, digest: Digest, form: str) -> _Copy:
    """Find the bytes in what was given. Raises InputError when they are not in it."""
    if not present(source):
        raise InputError(
            f"There is nothing at {shown(source)}.", remedy="Check the path.", code="repair.no_copy"
        )
    for home in (Home(source), Home(source / FOLDER)):
        if home.exists:
            return _in_registry(BlobStore(home.objects), digest, form, source)
    return _in_folder(source, digest) if source.is_dir() else _in_file(source, digest)


def _in_file(source: Path, digest: Digest) -> _Copy:
    with reading(source):
        refuse_special(source, source.lstat().st_mode)
        found = hash_file(source).digest
    if found != digest:
        raise _other_bytes(source, digest, found)
    return _Copy(how="file", files={digest: source}, tree=None)


def _in_folder(source: Path, digest: Digest) -> _Copy:
    entries: list[Entry] = []
    files: dict[Digest, Path] = {}
    for file in scan(source):
        path = Path(file.source)
        with reading(path):
            hashed = hash_file(path)
        entries.append(
            Entry(
                path=file.path,
                size=hashed.size,
                digest=hashed.digest,
                executable=bool(file.status.st_mode & stat.S_IXUSR),
            )
        )
        files[hashed.digest] = path
    tree = tree_bytes(entries)
    found = hash_bytes(tree).digest
    if found != digest:
        raise _other_bytes(source, digest, found)
    return _Copy(how="file", files=files, tree=tree)


def _in_registry(store: BlobStore, digest: Digest, form: str, source: Path) -> _Copy:
    """Another registry's objects, each of them verified there."""
    try:
        store.verify(digest)
        tree = store.read(digest) if form == "tree" else None
        members = {entry.digest for entry in parse_tree(tree)} if tree is not None else {digest}
        for member in members:
            store.verify(member)
    except IntegrityError as error:
        raise InputError(
            f"The registry at {shown(source)} has no good copy: {error.message}",
            remedy="Give another copy; nothing was changed.",
            code="repair.no_copy",
        ) from error
    return _Copy(how="registry", files={m: store.path(m) for m in members}, tree=tree)


def _take(store: BlobStore, digest: Digest, path: Path, source: Path) -> None:
    found = store.put_file(path).digest
    if found != digest:
        raise _other_bytes(source, digest, found)


def _other_bytes(source: Path, digest: Digest, found: Digest) -> InputError:
    return InputError(
        f"{shown(source)} holds other bytes: {found}, and not {digest}.",
        remedy="Give a copy of the very same bytes; nothing was changed.",
        code="repair.other_bytes",
    )


# -- by runs ------------------------------------------------------------------------------------


def _by_runs(session: Session, digest: Digest) -> How:
    """Repeat the runs that made it. Raises InputError when none did."""
    state = session.state()
    form = form_of(state, digest)
    missing = {*state.absent, digest}
    runs = runs_to(state, digest, missing)
    for change in tools_changed_since(runs):
        render.note(f"  Note: {change.sentence}")
    for _ in range(2):  # once the list of files is back, damage to the files can be seen
        damage = examine(session.store, _objects(session.store, digest, form))
        if not damage.objects:
            break
        with _set_aside(session.home, damage.corrupt):
            for repeated in remake(
                session, runs, missing=missing, target=digest, watcher=Watcher()
            ):
                _require_same(repeated, digest)
            session.store.verify(digest)
    _prove(session.store, digest, form)
    return "run"


def _require_same(repeated: Repeated, digest: Digest) -> None:
    for found in repeated.differed:
        if found.recorded == digest or not repeated.restored:
            raise IntegrityError(
                f"{repeated.slot} is not deterministic here: as {found.role}, {found.recorded} was "
                f"recorded and {found.made} made now.",
                remedy=f"Give a copy: `still repair {digest[:SHORT]} --from PATH`.",
                code="repair.differed",
            )


# -- damaged objects ----------------------------------------------------------------------------


@contextmanager
def _set_aside(home: Home, corrupt: Collection[Digest]) -> Iterator[None]:
    """Make room for good bytes. If the block fails, the damaged ones come back."""
    moved: list[tuple[Path, Path]] = []
    if corrupt:
        with alone(home), writing(home.damaged):
            home.damaged.mkdir(exist_ok=True)
            for digest in corrupt:
                moved += _moved_aside(home, digest)
            _sync(home, moved)
    with ExitStack() as failed:  # however it fails, by Ctrl-C too
        failed.callback(_put_back, home, moved)
        yield
        failed.pop_all()


def _put_back(home: Home, moved: Collection[tuple[Path, Path]]) -> None:
    """Give damaged objects their names again, where nothing good has them."""
    with writing(home.damaged):
        for place, kept in moved:
            if not place.exists():
                kept.rename(place)
        _sync(home, moved)


def _moved_aside(home: Home, digest: Digest) -> Iterator[tuple[Path, Path]]:
    """(place, where it is now) of each name that the object has."""
    for place, name in zip(
        (object_path(home.objects, digest), condemned_path(home.objects, digest)),
        _damaged_names(digest),
        strict=True,
    ):
        if place.exists():
            kept = home.damaged / name
            place.rename(kept)
            yield place, kept


def _damaged_names(digest: Digest) -> tuple[str, str]:
    return digest, f"{digest}.condemned"


def _sync(home: Home, moved: Collection[tuple[Path, Path]]) -> None:
    folders = {path.parent for pair in moved for path in pair}
    for folder in sorted({home.root, *folders}):
        sync_folder(folder)


def _forget_damaged(home: Home, objects: Iterable[Digest]) -> None:
    """Remove what was set aside, now that good bytes are in its place; also by a killed repair."""
    with writing(home.root):
        for digest in objects:
            for name in _damaged_names(digest):
                (home.damaged / name).unlink(missing_ok=True)


def _prove(store: BlobStore, digest: Digest, form: str) -> None:
    """Read it all again. Raises IntegrityError."""
    for needed in (digest, *_objects(store, digest, form)):
        store.verify(needed)


def _tell(digest: Digest, before: Damage, how: How | None, *, as_json: bool) -> None:
    if as_json:
        render.json_document(
            {
                "digest": digest,
                "missing": list(before.missing),
                "corrupt": list(before.corrupt),
                "how": how,
            }
        )
        return
    if how is None:
        render.row("intact", render.short(digest), "every byte is what was recorded")
        return
    for word, objects in (("missing", before.missing), ("corrupt", before.corrupt)):
        for needed in objects:
            render.row(word, render.short(needed), "is good again")
    render.row("restored", render.short(digest), f"from a {how}, and proved by its digest")
