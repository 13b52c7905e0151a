from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.phases.deployment.verify import expired_waivers, verify_folder
from stillhouse.phases.deployment.work import release as release_of
from stillhouse.schemas import canonical
from stillhouse.schemas.errors import InputError, UntrustedFileError
from stillhouse.schemas.release import Manifest, WaiverRow

from .release_parts import NOW, a_context

MODEL = "models/prefill-8.mlpackage/Data/weights/weight.bin"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed")
    context = a_context(folder)
    release_of(context)
    return context.scratch / "release"


@pytest.fixture
def release(sealed: Path, tmp_path: Path) -> Path:
    """A copy that a test may tamper with."""
    return Path(shutil.copytree(sealed, tmp_path / "release"))


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "deployment_manifest.json"
    content = json.loads(path.read_bytes())
    change(content)
    path.write_bytes(canonical.encode(content))


def test_an_untouched_release_verifies(release: Path) -> None:
    report = verify_folder(release, NOW)
    assert report.ok
    listed = [p for p in release.rglob("*") if p.is_file()]
    assert report.checked == len(listed) - 1  # all but the manifest


def test_a_missing_file_is_named(release: Path) -> None:
    (release / MODEL).unlink()
    report = verify_folder(release, NOW)
    assert (report.missing, report.added, report.changed) == ((MODEL,), (), ())
    assert not report.ok


def test_an_added_file_is_named_wherever_it_hides(release: Path) -> None:
    (release / "models/prefill-8.mlpackage/.hidden").write_text("")
    assert verify_folder(release, NOW).added == ("models/prefill-8.mlpackage/.hidden",)


def test_a_folder_deeper_than_any_release_is_refused(release: Path) -> None:
    (release / "/".join("d" * 100)).mkdir(parents=True)
    with pytest.raises(UntrustedFileError) as caught:
        verify_folder(release, NOW)
    assert caught.value.code == "verify.too_deep"


@pytest.mark.parametrize("edit", ["flip a bit", "append", "truncate", "same size"])
def test_a_changed_file_is_named(release: Path, edit: str) -> None:
    path = release / MODEL
    data = path.read_bytes()
    changed = {
        "flip a bit": bytes([data[0] ^ 1]) + data[1:],
        "append": data + b"\0",
        "truncate": data[:-1],
        "same size": bytes(len(data)),
    }[edit]
    path.write_bytes(changed)
    report = verify_folder(release, NOW)
    assert (report.missing, report.added, report.changed) == ((), (), (MODEL,))


def test_a_swap_of_two_files_is_two_changes(release: Path) -> None:
    one, two = release / "exports/prefill-8.pt2", release / "exports/prefill-16.pt2"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    changed = verify_folder(release, NOW).changed
    assert changed == ("exports/prefill-16.pt2", "exports/prefill-8.pt2")


def test_a_file_that_became_a_link_is_changed_though_its_bytes_are_right(
    release: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (release / MODEL).rename(outside)
    (release / MODEL).symlink_to(outside)
    assert verify_folder(release, NOW).changed == (MODEL,)


def test_a_folder_that_became_a_link_is_not_followed(release: Path, tmp_path: Path) -> None:
    (release / "exports").rename(tmp_path / "exports")
    (release / "exports").symlink_to(tmp_path / "exports")
    report = verify_folder(release, NOW)
    assert report.added == ("exports",)
    assert len(report.missing) == 3


def test_a_listed_file_that_became_a_folder_is_missing(release: Path) -> None:
    (release / MODEL).unlink()
    (release / MODEL).mkdir()
    assert verify_folder(release, NOW).missing == (MODEL,)


def test_a_name_that_is_not_utf_8_is_shown_escaped(release: Path) -> None:
    (Path(str(release)) / "exports" / b"\xff.pt2".decode("utf-8", "surrogateescape")).touch()
    assert verify_folder(release, NOW).added == (r"'exports/\udcff.pt2'",)


def test_an_edited_runtime_config_is_a_change(release: Path) -> None:
    path = release / "runtime_config.json"
    path.write_bytes(path.read_bytes().replace(b'"max_new_tokens":32', b'"max_new_tokens":64'))
    assert verify_folder(release, NOW).changed == ("runtime_config.json",)


def test_an_edited_manifest_has_another_digest(release: Path) -> None:
    before = verify_folder(release, NOW)
    edit_manifest(release, lambda m: m.update(name="other"))
    after = verify_folder(release, NOW)
    assert before.manifest != after.manifest
    assert before.manifest_sha256 != after.manifest_sha256
    assert any("of another release" in fault for fault in after.faults)


def without_runtime_config(manifest: dict[str, Any]) -> None:
    manifest["files"] = [f for f in manifest["files"] if f["path"] != "runtime_config.json"]


def without_model_files(manifest: dict[str, Any]) -> None:
    manifest["files"] = [f for f in manifest["files"] if "decode-8" not in f["path"]]


def claim_more(manifest: dict[str, Any]) -> None:
    subjects = manifest["capabilities"][0]["subjects"]
    claim = {"name": "fast", "gates": ["evaluation.speed"], "subjects": subjects}
    manifest["capabilities"].append(claim)


def forget_artifacts(manifest: dict[str, Any]) -> None:
    manifest["artifacts"] = [a for a in manifest["artifacts"] if a["kind"] != "mlpackage"]


def fail_one_shape(manifest: dict[str, Any]) -> None:
    row = next(g for g in manifest["gates"] if g["slot"] == "verification/prefill-16")
    row["verdict"] = "fail"


def forget_a_subject(manifest: dict[str, Any]) -> None:
    manifest["capabilities"][0]["subjects"].pop()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (fail_one_shape, "checked_numbers rests on verification.numbers, which did not pass"),
        (forget_a_subject, "checked_numbers names other subjects"),
        (without_runtime_config, "runtime_config.json is not listed"),
        (without_model_files, "names models/decode-8.mlpackage, of which no file is listed"),
        (claim_more, "the capability fast rests on evaluation.speed, which did not pass"),
        (forget_artifacts, "which is not listed"),
    ],
)
def test_a_manifest_that_contradicts_itself_says_where(
    release: Path, change: Callable[[dict[str, Any]], object], fault: str
) -> None:
    edit_manifest(release, change)
    report = verify_folder(release, NOW)
    assert not report.ok
    assert any(fault in text for text in report.faults)


def test_a_manifest_in_other_whitespace_is_not_canonical(release: Path) -> None:
    path = release / "deployment_manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
    report = verify_folder(release, NOW)
    assert report.faults == ("deployment_manifest.json is not in canonical form",)


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "a/../../b", "a//b", "", ".", "a\\b", "a\nb", "a\0b"]
)
def test_a_manifest_that_points_out_of_the_folder_is_refused(release: Path, path: str) -> None:
    edit_manifest(release, lambda m: m["files"][0].update(path=path))
    with pytest.raises(UntrustedFileError):
        verify_folder(release, NOW)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["files"].append(m["files"][0]),
        lambda m: m["files"][0].update(path="deployment_manifest.json"),
        lambda m: m["files"][0].update(blake3="zz"),
        lambda m: m["files"][0].update(size=-1),
        lambda m: m.update(unknown=1),
        lambda m: m.pop("files"),
        lambda m: m.update(schema_version=3),
    ],
)
def test_a_malformed_manifest_is_refused(
    release: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_manifest(release, change)
    with pytest.raises(UntrustedFileError):
        verify_folder(release, NOW)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b'{"name":NaN}', b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(release: Path, data: bytes) -> None:
    (release / "deployment_manifest.json").write_bytes(data)
    with pytest.raises(UntrustedFileError):
        verify_folder(release, NOW)


def test_a_manifest_that_is_a_link_is_refused(release: Path, tmp_path: Path) -> None:
    path = release / "deployment_manifest.json"
    path.rename(tmp_path / "manifest")
    path.symlink_to(tmp_path / "manifest")
    with pytest.raises(UntrustedFileError):
        verify_folder(release, NOW)


def test_a_folder_without_a_manifest_and_no_folder_at_all_are_input_errors(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError) as refused:
            verify_folder(folder, NOW)
        assert refused.value.code == "verify.no_manifest"


def test_a_waiver_is_over_at_its_very_end(release: Path) -> None:
    manifest = Manifest.model_validate_json((release / "deployment_manifest.json").read_bytes())
    gate = manifest.gates[0]
    waived = [
        gate.model_copy(update={"waiver": WaiverRow(author=until, reason="r", until=until, seq=1)})
        for until in ("2026-11-22T11:59:59.999999Z", NOW, "2026-11-22T12:00:00.000001Z")
    ]
    over = expired_waivers(manifest.model_copy(update={"gates": (gate, *waived)}), NOW)
    assert [one.author for one in over] == [row.waiver.until for row in waived[:2] if row.waiver]


def test_verifying_needs_no_heavy_library() -> None:
    script = (
        "import sys; import stillhouse.phases.deployment.verify; "
        "print([m for m in ('torch', 'numpy', 'duckdb', 'coremltools') if m in sys.modules])"
    )
    ran = subprocess.run(
        (sys.executable, "-c", script),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "[]"
