from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stillhouse.config import Config, read_config
from stillhouse.phases import environment
from stillhouse.registry.home import FOLDER, Home
from stillhouse.schemas.artifact import PUBLISHABLE
from stillhouse.schemas.errors import InputError

from .conftest import Still


def _object(home: Home, digest: str) -> Path:
    return home.objects / digest[:2] / digest[2:]


def _corrupt(path: Path) -> None:
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def test_init_makes_an_empty_registry_here(still: Still, place: Path) -> None:
    answer = still("init")
    home = Home(place / FOLDER)
    assert (answer.code, answer.out) == (0, f"{home.root}\n")
    assert home.exists
    assert home.log.read_bytes() == b""
    assert {p.name for p in home.inbox.iterdir()} == set(PUBLISHABLE)
    assert read_config(home) == Config()


def test_init_is_idempotent(still: Still, place: Path, policy: Path) -> None:
    still("init")
    still("publish", policy, "--kind", "policy")
    home = Home(place / FOLDER)
    home.config.write_text("workers = 3\n", encoding="utf-8")
    before = home.log.read_bytes()
    assert still("init").code == 0
    assert home.log.read_bytes() == before
    assert read_config(home).workers == 3


def test_init_makes_one_here_even_below_another(
    still: Still, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = home.root.parent / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert still("init").code == 0
    assert (below / FOLDER / "events.log").is_file()


def test_a_bad_config_names_the_file(home: Home) -> None:
    for text in ("workers = 0\n", "workers = \n", "workres = 1\n"):
        home.config.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"config\.toml"):
            read_config(home)


def test_doctor_ends_with_1_exactly_when_something_is_refused_or_missing(still: Still) -> None:
    found = environment.findings(environment.probe())
    bad = any(finding.level in ("refused", "missing") for finding in found)
    answer = still("doctor", "--json")
    assert answer.code == int(bad)
    assert [f["package"] for f in answer.json["findings"]] == [f.package for f in found]
    assert answer.json["environment"]["packages"]["pydantic"]


def test_doctor_refuses_a_version_that_cannot_work(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = environment.probe()
    packages = {**real.packages, "coremltools": "8.3"}
    monkeypatch.setattr(
        "stillhouse.phases.environment.probe",
        lambda: environment.Environment(**{**vars(real), "packages": packages}),
    )
    answer = still("doctor")
    assert answer.code == 1
    assert ["refused", "coremltools", "8.3"] in [row[:3] for row in answer.rows]


def test_fsck_of_a_whole_registry_ends_with_0(still: Still, home: Home, policy: Path) -> None:
    still("publish", policy, "--kind", "policy")
    answer = still("fsck", "--json")
    assert answer.code == 0
    assert answer.json["ok"] is True
    assert answer.json["ledger"]["events"] == 1
    assert answer.json["store"]["objects"] == 1
    assert home.exists


def test_fsck_names_the_artifact_whose_bytes_changed(still: Still, home: Home, place: Path) -> None:
    folder = place / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("a", encoding="utf-8")
    (folder / "b.txt").write_text("b", encoding="utf-8")
    digest = still("publish", folder, "--kind", "source", "--name", "pair").out.strip()
    member = still("cat", digest).rows[0][2]
    _corrupt(_object(home, member))
    answer = still("fsck", "--json")
    assert answer.code == 1
    (problem,) = answer.json["store"]["corrupt"]
    assert problem["digest"] == member
    assert problem["artifacts"] == [f"source pair {digest[:12]}"]
    assert "needed by source pair" in still("fsck").out


def test_fsck_names_what_is_missing(still: Still, home: Home, policy: Path) -> None:
    digest = still("publish", policy, "--kind", "policy").out.strip()
    _object(home, digest).unlink()
    answer = still("fsck", "--json")
    assert answer.code == 1
    assert [p["digest"] for p in answer.json["store"]["missing"]] == [digest]


def test_fsck_tells_of_an_edited_ledger_and_still_checks_the_store(
    still: Still, home: Home, policy: Path, place: Path
) -> None:
    kept = still("publish", policy, "--kind", "policy").out.strip()
    (place / "note").write_text("x", encoding="utf-8")
    still("publish", "note", "--kind", "source")
    log = home.log.read_bytes()
    home.log.write_bytes(log.replace(b'"name":"note"', b'"name":"nose"'))
    _corrupt(_object(home, kept))
    answer = still("fsck", "--json")
    assert answer.code == 1
    assert answer.json["ledger"]["fault"]["code"] == "ledger.broken"
    assert answer.json["ledger"]["events"] == 1
    assert [p["digest"] for p in answer.json["store"]["corrupt"]] == [kept]


def test_fsck_reports_an_unacknowledged_write_and_is_content(
    still: Still, home: Home, policy: Path
) -> None:
    still("publish", policy, "--kind", "policy")
    with home.log.open("ab") as log:
        log.write(b"torn")
    answer = still("fsck", "--json")
    assert (answer.code, answer.json["ledger"]["torn_bytes"]) == (0, 4)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_init_where_nothing_may_be_written_is_an_error_with_a_remedy(
    still: Still, place: Path
) -> None:
    place.chmod(0o500)
    answer = still("init")
    place.chmod(0o700)
    assert answer.code == 1
    assert "Next:" in answer.err


def test_a_cut_ledger_is_neither_extended_nor_called_intact(
    still: Still, home: Home, place: Path
) -> None:
    for name in ("s1", "s2", "s3"):
        (place / name).write_text(name, encoding="utf-8")
        still("publish", name, "--kind", "source")
    assert still("sql", "select count(*) from event").code == 0
    lines = home.log.read_bytes().splitlines(keepends=True)
    home.log.write_bytes(b"".join(lines[:-1]))
    before = home.log.read_bytes()
    (place / "s4").write_text("s4", encoding="utf-8")
    refused = still("publish", "s4", "--kind", "source")
    assert refused.code == 1
    assert "no longer holds event 3" in refused.err
    assert home.log.read_bytes() == before
    answer = still("fsck", "--json")
    assert answer.code == 1
    assert answer.json["ledger"]["events"] == 2
    assert answer.json["ledger"]["fault"]["code"] == "ledger.cut"
