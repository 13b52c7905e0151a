"""`config.toml`: what it may say, and how it is told what it may not."""

from __future__ import annotations

import json
import tomllib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.config import TEXT, Config, read_config
from stillhouse.registry.home import Home
from stillhouse.schemas.errors import InputError
from stillhouse.schemas.limits import Limits, PhaseLimits
from stillhouse.session import clock

KEY = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"


def _read(home: Home, text: str) -> Config:
    home.config.write_text(text, encoding="utf-8")
    return read_config(home)


def _refused(home: Home, text: str) -> InputError:
    with pytest.raises(InputError, match=r"config\.toml") as caught:
        _read(home, text)
    return caught.value


def test_a_fresh_file_means_the_defaults_and_so_does_an_empty_one(home: Home) -> None:
    assert read_config(home) == Config() == _read(home, "")
    assert Config().limits() == Limits()


def test_a_file_of_an_older_program_keeps_loading(home: Home) -> None:
    assert _read(home, "schema_version = 1\n\nworkers = 3\n").limits() == Limits(workers=3)


def test_every_line_that_is_explained_can_be_taken_in_as_it_stands(home: Home) -> None:
    lines = [line.removeprefix("# ") for line in TEXT.splitlines() if " = " in line or "[" in line]
    settings = "\n".join(line for line in lines if line[:1].islower() or line[:1] == "[")
    found = _read(home, settings)
    explained = {k for k in tomllib.loads(settings) if k != "schema_version"}
    assert explained == {*Limits.model_fields, "grace", "secrets"}
    assert set(found.phases["training"].model_fields_set) == set(PhaseLimits.model_fields)
    assert (found.attempts, found.backoff) == (Limits().attempts, Limits().backoff)


def test_limits_are_what_the_file_says(home: Home) -> None:
    found = _read(
        home,
        'workers = 4\nmemory = "1.5 GiB"\nattempts = 5\nbackoff = 0\nsecrets = ["A", "B_2"]\n'
        "[phases.training]\nworkers = 1\nmemory = 1000\nseconds = 60\n[phases.export]\n"
        'memory = "2 MiB"\n',
    )
    assert found.secrets == ("A", "B_2")
    assert found.limits() == Limits(
        workers=4,
        memory=3 * 2**29,
        attempts=5,
        backoff=0,
        phases={
            "training": PhaseLimits(workers=1, memory=1000, seconds=60),
            "export": PhaseLimits(memory=2**21),
        },
    )


@given(
    whole=st.integers(0, 10**6),
    part=st.integers(0, 999),
    unit=st.sampled_from([("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)]),
)
def test_a_size_is_its_number_times_its_unit_rounded_down(
    whole: int, part: int, unit: tuple[str, int]
) -> None:
    name, power = unit
    exact = Fraction(whole * 1000 + part, 1000) * 2**power
    given_ = {"memory": f"{whole}.{part:03} {name}"}
    if exact >= 1:
        assert Config.model_validate(given_).memory == int(exact)
    else:
        with pytest.raises(ValueError, match="greater than 0"):
            Config.model_validate(given_)


@pytest.mark.parametrize(
    "size",
    [
        '"16 GB"', '"GiB"', '"16"', '"-1 GiB"', '"1e9 B"', '"0 B"', '"nan GiB"', '"1  GiB"', "0",
        "-5", "1.5", "true", "inf", "9999999999999999999999", '"99999999999999 TiB"', "[1]",
        "2026-11-22",
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(home: Home, size: str) -> None:
    assert "memory" in _refused(home, f"memory = {size}\n").message
    assert "memory" in _refused(home, f"[phases.export]\nmemory = {size}\n").message


@pytest.mark.parametrize(
    "line",
    [
        "workers = 0", "workers = 65", "workers = true", 'workers = "2"', "workers = 1.5",
        "attempts = 0", "attempts = 101", "backoff = -1", "backoff = nan", "backoff = inf",
        "backoff = 3601", 'secrets = "A"', "secrets = [1]", "phases = 3", "phases.training = 3",
        "phases.training.seconds = 0", "phases.training.workers = 0", "schema_version = 2",
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_refused_by_its_name(home: Home, line: str) -> None:
    error = _refused(home, line + "\n")
    assert line.partition(" ")[0].split(".")[0] in error.message
    assert error.code == "config.invalid"


@pytest.mark.parametrize("grace", ["59m", "365001d", "999999w", "14", "", "1y"])
def test_a_grace_that_is_too_short_or_leads_out_of_the_calendar_is_refused(
    home: Home, grace: str
) -> None:
    error = _refused(home, f'grace = "{grace}"\n')
    assert "`grace`" in error.message
    assert error.code == "config.invalid"


@pytest.mark.parametrize("grace", ["1h", "365000d"])
def test_the_shortest_and_the_longest_grace_are_taken_and_reckoned_with(
    home: Home, grace: str
) -> None:
    found = _read(home, f'grace = "{grace}"\n').grace
    assert clock() - found < clock() < clock() + found


def test_an_unknown_key_is_refused_and_the_known_ones_are_named(home: Home) -> None:
    error = _refused(home, "workres = 1\n")
    assert "'workres'" in error.message
    assert "workers, memory, attempts, backoff" in error.remedy
    below = _refused(home, "[phases.training]\nbackoff = 1\n")
    assert "'backoff' in [phases.training]" in below.message
    assert "workers, memory, seconds" in below.remedy
    assert error.code == below.code == "config.unknown_key"


def test_an_unknown_phase_is_refused_and_the_known_ones_are_named(home: Home) -> None:
    error = _refused(home, "[phases.trainig]\nworkers = 1\n")
    assert error.code == "config.unknown_phase"
    assert "'trainig'" in error.message
    assert "dataset, training, export" in error.remedy


@pytest.mark.parametrize(
    "value",
    [
        KEY,
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "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",
        "AKIAIOSFODNN7EXAMPLE",
        "sk-proj-abcdefghijklmnop1234",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2ln",
    ],
)
def test_a_key_where_its_name_belongs_is_refused_and_never_repeated(home: Home, value: str) -> None:
    error = _refused(home, f'secrets = ["HF_TOKEN", "{value}"]\n')
    assert "item 2 looks like a key" in error.message
    assert value not in json.dumps(error.as_dict())


@pytest.mark.parametrize("name", ["HF TOKEN", "", "2ND", "A=b", "$HOME", "A" * 65, "ключ"])
def test_what_is_no_name_of_a_variable_is_refused(home: Home, name: str) -> None:
    assert "item 1 is not the name" in _refused(home, f'secrets = ["{name}"]\n').message


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "http_proxy", "_K2", "AWS_SECRET_ACCESS_KEY"]
)
def test_ordinary_names_of_variables_are_taken(home: Home, name: str) -> None:
    assert _read(home, f'secrets = ["{name}"]\n').secrets == (name,)


@pytest.mark.parametrize("data", [b"workers = \n", b"\xff\xfe", b"workers = 1\nworkers = 2\n"])
def test_what_is_no_toml_names_the_file(home: Home, data: bytes) -> None:
    home.config.write_bytes(data)
    with pytest.raises(InputError, match=r"config\.toml"):
        read_config(home)
