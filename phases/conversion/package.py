"""Steady packages: the same model gives the same bytes, in any process and on any day.

What coremltools 9.0 writes differently each time, and what becomes of it:

- map entries of the model file have no fixed order: written again, sorted;
- the model file holds the date of conversion: removed;
- `Manifest.json` names its items by random UUIDs: made from the items' content instead;
- a mapping of debug handles for ExecuTorch lies beside them, of no use here: left out.

Weights are moved, never read into memory whole.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from stillhouse.phases.mil import quiet_coremltools
from stillhouse.schemas.errors import PhaseError
from stillhouse.store.disk.hashing import hash_file

_DATE = "com.github.apple.coremltools.conversion_date"
_NAMESPACE = UUID("6d0c4a6e-6f0b-5e0e-9d53-0d8c8a2a7f11")
"""Of identifiers that are made from content here."""

_AUTHOR = "com.apple.CoreML"
_MODEL = f"{_AUTHOR}/model.mlmodel"
_WEIGHTS = f"{_AUTHOR}/weights"
_WEIGHT_FILE = f"{_WEIGHTS}/weight.bin"


def canonicalise(raw: Path, folder: Path) -> Path:
    """Make the package `folder` out of `raw`, which is used up. Returns `folder`.

    Raises PhaseError when `raw` is not a package of one model file with one weight file.
    """
    data = raw / "Data"
    found = sorted(p.relative_to(data).as_posix() for p in data.rglob("*") if p.is_file())
    if found != [_MODEL, _WEIGHT_FILE]:
        raise PhaseError(
            f"The converted package holds {', '.join(found) or 'nothing'} instead of "
            f"{_MODEL} and {_WEIGHT_FILE}.",
            remedy="Use the coremltools version that the environment report calls tested.",
            code="conversion.package_files",
        )
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "Data" / _WEIGHTS).mkdir(parents=True)
    model, weights = folder / "Data" / _MODEL, folder / "Data" / _WEIGHT_FILE
    model.write_bytes(_steady_model((data / _MODEL).read_bytes()))
    (data / _WEIGHT_FILE).replace(weights)
    (folder / "Manifest.json").write_text(_manifest(model, weights), encoding="utf-8")
    for file in (model, weights, folder / "Manifest.json"):
        file.chmod(0o644)
    shutil.rmtree(raw)
    return folder


def _steady_model(data: bytes) -> bytes:
    with quiet_coremltools():
        from coremltools.proto import Model_pb2
    model: Any = Model_pb2.Model()
    model.ParseFromString(data)
    model.description.metadata.userDefined.pop(_DATE, None)
    steady: bytes = model.SerializeToString(deterministic=True)
    return steady


def _manifest(model: Path, weights: Path) -> str:
    def identifier(path: str, file: Path) -> str:
        return str(uuid5(_NAMESPACE, f"{path}\n{hash_file(file).digest}"))

    root = identifier(_MODEL, model)
    items = {
        root: _item("model.mlmodel", "CoreML Model Specification", _MODEL),
        identifier(_WEIGHTS, weights): _item("weights", "CoreML Model Weights", _WEIGHTS),
    }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": items,
        "rootModelIdentifier": root,
    }
    return json.dumps(manifest, indent=4, sort_keys=True) + "\n"


def _item(name: str, description: str, path: str) -> dict[str, str]:
    return {"author": _AUTHOR, "description": description, "name": name, "path": path}
