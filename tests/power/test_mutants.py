"""The check can fail: with one barrier left out, or put too late, it says what is lost."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pytest

from stillhouse.registry.ledger import file as logfile
from stillhouse.registry.ledger import format as chain
from stillhouse.registry.ledger.ledger import Ledger
from stillhouse.store.disk import durable, kernel
from stillhouse.store.objects import quarantine, staging
from stillhouse.store.objects.staging import Batch

from .checking import try_states
from .scenarios import play

Change = tuple[object, str, Any]


def no_sync(*_: object, **__: object) -> None:
    """A barrier that is none."""


def without_the_store_itself(folders: Collection[Path], within: int) -> None:
    durable.sync_folders(list(folders)[:-1], within)


def all_too_late(_: Collection[Path], within: int) -> None:
    kernel.sync_all(within)


def any_name_will_do(self: Batch, digest: str, size: int, **_: object) -> bool:
    return real_holds(self, digest, size, durable_ns=2**63)


real_holds: Callable[..., bool] = Batch.holds

MUTANTS: dict[str, tuple[str, str, tuple[Change, ...]]] = {
    "files are not synced": ("few", "readable and wrong", ((staging, "sync", no_sync),)),
    "many files are not synced": (
        "many",
        "readable and wrong",
        ((staging.Batch, "_make_durable", Batch.close),),
    ),
    "shown before they are synced": (
        "few",
        "readable and wrong",
        ((Batch, "_make_durable", no_sync), (staging, "sync_folders", all_too_late)),
    ),
    "folders are not synced": ("few", "acknowledged tree", ((staging, "sync_folders", no_sync),)),
    "a new folder's own name is not synced": (
        "blobs",
        "acknowledged object",
        ((staging, "sync_folders", without_the_store_itself),),
    ),
    "one sync of everything that does nothing": (
        "many",
        "readable and wrong",
        ((kernel, "sync_all", no_sync),),
    ),
    "what another process showed is believed": (
        "takeovers_by_memory",
        "acknowledged tree",
        ((Batch, "holds", any_name_will_do),),
    ),
    "put back, and the other name removed first": (
        "quarantines",
        "acknowledged object",
        ((quarantine, "sync_folder", no_sync),),
    ),
    "small files are replaced unsynced": (
        "rewritings",
        "holds neither",
        ((durable, "sync", no_sync),),
    ),
    "a new registry's folders are not synced": (
        "founding",
        "the registry is gone",
        ((durable, "sync_folder", no_sync),),
    ),
    "events are not synced": (
        "appends",
        "acknowledged event is gone",
        ((logfile, "sync", no_sync),),
    ),
    "what a killed gc recorded is carried out at once": (
        "collections_resumed",
        "recorded as stored",
        ((Ledger, "settle", no_sync),),
    ),
    "what a power cut tore is taken for damage": (
        "appends",
        "The ledger is broken",
        ((chain, "torn_by_power", lambda *_: False),),
    ),
    "a new ledger's name is not synced": (
        "first_append",
        "acknowledged event is gone",
        ((logfile, "sync_folder", no_sync),),
    ),
    "what another process recorded is believed": (
        "publications",
        "acknowledged publication is gone",
        ((Ledger, "settle", no_sync),),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_barrier_left_out_is_noticed(mutant: str, quick: Path) -> None:
    name, expected, changes = MUTANTS[mutant]
    with ExitStack() as stack:
        for owner, attribute, change in changes:
            stack.enter_context(mock.patch.object(owner, attribute, change))
        played = play(name, quick)
        losses = try_states(played, quick, chance=Random(mutant), at_least=60).losses
    assert any(expected in fault for loss in losses for fault in loss.faults)
