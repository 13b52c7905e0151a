from __future__ import annotations

import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.phases import verification
from stillhouse.phases.environment import PACKAGES, Cpu, Environment, facts, findings, probe
from stillhouse.phases.environment.probe import cpu_from_cpuinfo, cpu_from_sysctl
from stillhouse.phases.environment.versions import GATED, RANGES, diagnose, judge_version
from stillhouse.schemas import canonical

ROOT = Path(__file__).parents[2]


def an_environment(**changes: Any) -> Environment:
    versions: dict[str, str] = dict.fromkeys(PACKAGES, "1.0")
    versions |= {"torch": "2.13.0+cpu", "transformers": "5.23.0", "coremltools": "9.0"}
    versions |= {"numpy": "2.4.6", "duckdb": "2.0.0"}
    tested = Environment(
        python="3.11.7",
        implementation="CPython",
        system="Darwin",
        release="15.1",
        machine="arm64",
        cpu=Cpu(model="Apple M4", flags=()),
        cores=10,
        memory_gib=16,
        packages=versions,
    )
    return dataclasses.replace(tested, **changes)


def test_two_probes_of_one_machine_have_the_same_bytes() -> None:
    assert canonical.encode(probe().to_json()) == canonical.encode(probe().to_json())


def test_the_probe_sees_this_interpreter_and_its_packages() -> None:
    seen = probe()
    assert seen.python == ".".join(map(str, sys.version_info[:3]))
    assert seen.cores >= 1
    assert seen.memory_gib >= 1
    assert "blake3" in seen.packages


def test_a_registry_taken_to_a_mac_verifies_anew() -> None:
    mac = an_environment(release="15.1").versions
    linux = an_environment(system="Linux", release="6.8").versions
    keyed = [{t: v[t] for t in verification.SPEC.tools if t in v} for v in (mac, linux)]
    assert keyed[0] == {**keyed[1], "macos": "15.1"}
    assert "macos" not in keyed[1]
    assert mac != an_environment(release="15.2").versions


def test_the_cpu_capability_is_the_one_that_torch_chooses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    import torch

    assert probe().cpu.capability == torch.backends.cpu.get_cpu_capability()


def test_an_arm_cpuinfo_and_a_macos_sysctl_are_understood() -> None:
    arm = "processor\t: 0\nFeatures\t: fp asimd bf16 crc32\nCPU implementer\t: 0x41\n"
    assert cpu_from_cpuinfo(arm + "CPU part\t: 0xd40\n") == Cpu(
        model="0x41 0xd40", flags=("asimd", "bf16")
    )
    apple = "machdep.cpu.brand_string: Apple M4\nhw.optional.arm.FEAT_BF16: 1\n"
    assert cpu_from_sysctl(apple + "hw.optional.arm.FEAT_SME: 0\n") == Cpu(
        model="Apple M4", flags=("FEAT_BF16",)
    )
    intel = "machdep.cpu.brand_string: Intel\nhw.optional.avx2_0: 1\nhw.optional.fma: 1\n"
    assert cpu_from_sysctl(intel).capability == "AVX2"


def test_a_machine_that_says_nothing_about_its_processor_still_has_a_name() -> None:
    assert cpu_from_cpuinfo("") == Cpu(model="unknown", flags=())


@pytest.mark.parametrize(
    ("package", "version", "level"),
    [
        ("python", "3.11.7", "ok"),
        ("python", "3.12.0", "warn"),
        ("python", "3.13.9", "warn"),
        ("python", "3.14.0", "refused"),
        ("python", "3.10.14", "refused"),
        ("torch", "2.13.0+cpu", "ok"),
        ("torch", "2.13", "ok"),
        ("torch", "2.13.0rc1", "warn"),
        ("torch", "2.14.0", "warn"),
        ("torch", "2.9.1", "warn"),
        ("torch", "2.2.0", "refused"),
        ("torch", "3.0", "refused"),
        ("transformers", "5.23.4", "ok"),
        ("transformers", "5.9", "warn"),
        ("transformers", "4.57", "refused"),
        ("coremltools", "9.0", "ok"),
        ("coremltools", "9.0b1", "warn"),
        ("coremltools", "8.3", "refused"),
        ("coremltools", "10.0", "refused"),
        ("numpy", "2.4.6", "ok"),
        ("numpy", "1.26.4", "refused"),
        ("duckdb", "2.0.0", "ok"),
        ("duckdb", "1.4.1", "refused"),
        ("duckdb", "", "missing"),
    ],
)
def test_the_gate_on_versions(package: str, version: str, level: str) -> None:
    found = judge_version(package, version)
    assert found.level == level
    assert found.reason
    assert bool(found.remedy) == (level != "ok")


@given(
    st.sampled_from(GATED),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.sampled_from(["", "+cpu", ".post1", "rc2", ".dev3", "-odd"]),
)
def test_every_version_of_a_gated_package_gets_a_verdict(
    package: str, numbers: list[int], suffix: str
) -> None:
    version = ".".join(map(str, numbers)) + suffix
    assert judge_version(package, version).level in ("ok", "warn", "refused")
    assert judge_version(package, version) == judge_version(package, version)


def test_each_gated_package_ends_with_a_row_that_holds_everything() -> None:
    for package in GATED:
        last = [row for row in RANGES if row.package == package][-1]
        assert (last.start, last.end, last.level) == ("0", None, "refused")


def test_a_tested_machine_has_no_findings_but_ok() -> None:
    assert {f.level for f in findings(an_environment())} == {"ok"}


def test_linux_only_warns_that_the_device_cannot_be_asked() -> None:
    found = [f for f in findings(an_environment(system="Linux", release="6.1")) if f.level != "ok"]
    assert [(f.level, f.package) for f in found] == [("warn", "Core ML")]


def test_the_facts_count_what_is_refused_missing_and_warned() -> None:
    packages = dict(an_environment().packages)
    del packages["gguf"]
    packages["numpy"] = "1.26"
    carried = facts(an_environment(packages=packages, python="3.12.1"))
    values = {m.name: m.value for m in carried.metrics}
    assert values == {"unsupported": 2, "warnings": 1}
    assert {f.package for f in carried.findings} == {"gguf", "numpy", "python"}
    canonical.encode(carried.to_json())


def test_every_declared_distribution_is_recorded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["phases"]
    names = {line.split(">")[0].split("=")[0] for line in declared}
    assert names <= set(PACKAGES)


@pytest.mark.parametrize(
    ("packages", "ok"), [({}, True), ({"numpy": "2.0.0b1"}, True), ({"numpy": "1.26"}, False)]
)
def test_a_machine_is_well_unless_something_is_refused_or_missing(
    packages: dict[str, str], ok: bool
) -> None:
    machine = an_environment()
    found = diagnose(dataclasses.replace(machine, packages={**machine.packages, **packages}))
    assert found.ok is ok
    assert not diagnose(dataclasses.replace(machine, packages={})).ok


def test_importing_and_probing_load_no_heavy_library() -> None:
    script = (
        "import sys; from stillhouse.phases.environment import findings, probe; findings(probe()); "
        "print([m for m in ('torch', 'numpy', 'transformers', 'coremltools', 'duckdb', 'pydantic')"
        " if m in sys.modules])"
    )
    ran = subprocess.run(
        (sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
