"""What a check of a whole registry found, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.health import Health
    from stillhouse.store.check.fsck import FsckReport


def show_health(screen: Screen, found: Health) -> None:
    """Counts first, then every problem with what needs the object."""
    ledger, store = found.ledger, found.store
    screen.facts(
        {
            "ledger": f"{ledger.events} events, {ledger.fault or 'intact'}",
            "torn": f"{ledger.torn} bytes of an unacknowledged write" if ledger.torn else "",
            "store": f"{store.objects} objects, {screen.size(store.bytes)}",
            "read": _read(screen, store),
            "condemned": f"{store.condemned} objects" if store.condemned else "",
            "linked": f"{store.linked} objects have a second name" if store.linked else "",
        }
    )
    _show_problems(screen, store)
    for path in store.foreign:
        screen.row("foreign", f"{path} is not an object; it was left alone")
    for path in store.swept:
        screen.row("swept", f"{path}, left by a process that died")
    if store.missing or store.corrupt:
        screen.next("`still repair REF` brings an artifact back, from a copy or by its run.")
    elif store.exposed and store.how != "full":
        screen.next("`still fsck` reads them and tells whether they were edited.")


def _show_problems(screen: Screen, store: FsckReport) -> None:
    kinds = (("missing", store.missing), ("corrupt", store.corrupt), ("exposed", store.exposed))
    for name, problems in kinds:
        for problem in problems:
            screen.row(name, problem.what)
            for artifact in problem.artifacts:
                screen.row("", f"needed by {artifact}")


def _read(screen: Screen, store: FsckReport) -> str:
    if store.how == "metadata":
        return "nothing: names, sizes and modes only"
    read = f"{store.verified} objects, {screen.size(store.verified_bytes)}"
    if store.damaged_below is not None:
        below = f"{store.damaged_below:.3%}"
        return f"{read}: with 95 % confidence less than {below} of the bytes is damaged"
    if store.resumed_after is not None:
        after = screen.short(store.resumed_after)
        return f"{read}, those up to {after} by an earlier check"
    return read
