"""What this machine is: its interpreter, processor, memory and installed packages.

Rules: packages are looked up, never imported; nothing volatile (time, free memory, load) is kept,
so the digest of a probe is stable until the machine or its packages change.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = (
    "accelerate",
    "blake3",
    "coremltools",
    "duckdb",
    "gguf",
    "jinja2",
    "numpy",
    "protobuf",
    "pyarrow",
    "pydantic",
    "pytz",
    "rfc8785",
    "rich",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "typer",
    "watchfiles",
)
"""Distributions whose versions are recorded: the declared ones, and tokenizers, which transformers
brings and which decides token ids."""

NUMERIC_FLAGS = frozenset(
    {
        *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
        *("avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_tile"),
        *("asimd", "asimdhp", "bf16", "fphp", "i8mm", "sve", "sve2"),
        *("FEAT_BF16", "FEAT_FP16", "FEAT_I8MM", "FEAT_SME", "FEAT_SME2"),
    }
)
"""CPU features by which numeric libraries choose their kernels, and so their rounding."""


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """A processor, as far as it shapes numbers."""

    model: str
    flags: tuple[str, ...]
    """Those of NUMERIC_FLAGS that it has, sorted."""

    @property
    def capability(self) -> str:
        """The kernel set that torch chooses, by the rule of its ATen DispatchStub.

        `AVX512`, `AVX2`, or `DEFAULT` (also on ARM, where torch calls its only set so).
        """
        if {"avx512vl", "avx512bw", "avx512dq", "fma"} <= set(self.flags):
            return "AVX512"
        return "AVX2" if {"avx2", "fma"} <= set(self.flags) else "DEFAULT"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One machine with one set of installed packages. Equal on every probe until one changes."""

    python: str
    implementation: str
    system: str
    """`Linux`, `Darwin`."""
    release: str
    """The kernel's release; on macOS, the system's version."""
    machine: str
    cpu: Cpu
    cores: int
    memory_gib: int
    """Installed memory, rounded."""
    packages: Mapping[str, str]
    """Those of PACKAGES that are installed, with their versions."""

    @property
    def versions(self) -> Mapping[str, str]:
        """What a run key may hold: the packages, and by pseudo-names what else shapes results.

        `python` (its Unicode tables normalise text), `cpu` (the kernels that numeric libraries
        choose, and whether bf16 is worth using) and, on a Mac, `macos`, which brings Core ML.
        """
        bf16 = (
            "+bf16"
            if {"avx512_bf16", "amx_bf16", "bf16", "FEAT_BF16"} & set(self.cpu.flags)
            else ""
        )
        system = {"macos": self.release} if self.system == "Darwin" else {}
        return {
            **self.packages,
            **system,
            "python": self.python,
            "cpu": f"{self.machine} {self.cpu.capability}{bf16}",
        }

    def to_json(self) -> dict[str, Any]:
        """JSON-like dictionary, fit for schemas.canonical.encode; the artifact's content."""
        return {
            "schema_version": 1,
            "python": {"version": self.python, "implementation": self.implementation},
            "platform": {
                "system": self.system,
                "release": self.release,
                "machine": self.machine,
            },
            "cpu": {
                "model": self.cpu.model,
                "flags": list(self.cpu.flags),
                "capability": self.cpu.capability,
                "cores": self.cores,
            },
            "memory_gib": self.memory_gib,
            "packages": dict(sorted(self.packages.items())),
        }


def probe() -> Environment:
    """Look at this machine. Imports nothing heavy; the slowest part is reading package metadata."""
    name = os.uname()
    on_macos = sys.platform == "darwin"
    return Environment(
        python=sys.version.split()[0],
        implementation=sys.implementation.name,
        system=name.sysname,
        release=_macos_version() if on_macos else name.release,
        machine=name.machine,
        cpu=cpu_from_sysctl(_sysctl()) if on_macos else cpu_from_cpuinfo(_cpuinfo()),
        cores=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        packages=_installed(),
    )


def cpu_from_cpuinfo(text: str) -> Cpu:
    """The processor of a Linux `/proc/cpuinfo` (x86 says `flags`, ARM says `Features`)."""
    first: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        first.setdefault(key.strip(), value.strip())
    part = f"{first.get('CPU implementer', '')} {first.get('CPU part', '')}".strip()
    flags = first.get("flags", first.get("Features", "")).split()
    return _cpu(first.get("model name") or part, flags)


def cpu_from_sysctl(text: str) -> Cpu:
    """The processor of macOS's `sysctl machdep.cpu.brand_string hw.optional`."""
    known: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        known[key.strip()] = value.strip()
    on = [key.rpartition(".")[2] for key, value in known.items() if value == "1"]
    # Intel Macs spell them hw.optional.avx2_0, hw.optional.avx512vl.
    return _cpu(known.get("machdep.cpu.brand_string", ""), [f.removesuffix("_0") for f in on])


def _cpu(model: str, flags: list[str]) -> Cpu:
    kept = tuple(sorted(NUMERIC_FLAGS.intersection(flags)))
    return Cpu(model=model or "unknown", flags=kept)


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _macos_version() -> str:
    import platform

    return platform.mac_ver()[0]


def _sysctl() -> str:
    import subprocess

    command = ("/usr/sbin/sysctl", "machdep.cpu.brand_string", "hw.optional")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _installed() -> dict[str, str]:
    from importlib import metadata  # 30 ms: paid by the probe, not by the import

    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
