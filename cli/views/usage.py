"""Disk usage as a table of holders, and rows of totals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.registry.keeping.usage import By

if TYPE_CHECKING:
    from stillhouse.cli.screen import Screen
    from stillhouse.usage import Usage


def show_usage(screen: Screen, found: Usage) -> None:
    """One row a holder, then what there is of the rest."""
    screen.table(
        ("holder", "total", "unique", "shared", "name"),
        (
            (
                screen.short(row.holder) if found.by is By.ARTIFACT else row.holder,
                *map(screen.size, (row.total, row.unique, row.shared)),
                row.name,
            )
            for row in found.holders
        ),
    )
    if found.left_out:
        screen.note(f"  {found.left_out} more; see them with --top.")
    screen.row("store", screen.size(found.store))
    screen.row("unique", screen.size(found.unique))
    screen.row("shared", screen.size(found.shared))
    _show_rest(screen, found)


def _show_rest(screen: Screen, found: Usage) -> None:
    until = f"swept after {screen.moment(found.until)}" if found.until else ""
    for word, size, why in (
        ("condemned", found.condemned, until),
        (
            "left over",
            found.left_overs,
            "of commands that were killed; `still gc` removes it, or the next publish",
        ),
        (
            "run folders",
            found.run_folders,
            "what runs left that have not succeeded; `still gc` removes what is old",
        ),
    ):
        if size:
            screen.row(word, screen.size(size), why)
