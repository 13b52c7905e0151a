"""Bursts beside a running daemon: whether anything is lost, or done twice.

 a. recipes are moved into the inbox all at once; each is to become exactly one plan.
 b. files are published by 16 processes of `still publish` at a time; the daemon, which reads the
    ledger on its own, is to be told of each exactly once.

The plans ask for a gate that no environment passes, so that none of them keeps a worker busy.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from stillhouse.publish import publish_policy
from stillhouse.registry.home import Home
from stillhouse.schemas.artifact import Kind
from stillhouse.schemas.event import Event
from stillhouse.schemas.events import ArtifactPublished
from stillhouse.session import Session, make_registry, open_registry

FILES, QUICK_FILES = 500, 48
PUBLISHERS = 16
STILL = [sys.executable, "-c", "import sys; from stillhouse.cli.main import main; sys.exit(main())"]

LIMIT_SECONDS = 1200
EXPORT = "export = { prefill = [8], primary = 8 }\n"
POLICY = """
name = "p"
[tiers]
tier_2 = ["environment.versions"]
[gates."environment.versions"]
checks = [{ metric = "unsupported", op = "<", value = 0 }]
"""


def main(files: int) -> None:
    """Print how many were expected, lost and doubled, and how long each burst took."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        home = Home(folder / ".still")
        make_registry(home)
        session = open_registry(home)
        told = folder / "told.jsonl"
        with _daemon(home, told):
            begun = time.perf_counter()
            wanted = _drop(session, folder, files)
            _until(told, "plan.requested", files)
            _report("dropped", Counter(_names(session, "plan.requested")), wanted, begun)
            begun = time.perf_counter()
            wanted = _publish(home, folder, files)
            heard = _until(told, "artifact.published", files, kind="source")
            _report("published", Counter(_names(session, "artifact.published")), wanted, begun)
            _report("heard of", heard, wanted, begun)
    if session.ledger.audit().fault is not None:
        raise SystemExit("the chain is broken")


@contextmanager
def _daemon(home: Home, told: Path) -> Iterator[None]:
    with told.open("wb") as out:
        command = [*STILL, "--registry", str(home.root), "watch", "--json"]
        daemon = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


def _drop(session: Session, folder: Path, files: int) -> set[str]:
    """Move that many recipes into the inbox; their names."""
    (folder / "policy.toml").write_text(POLICY, encoding="utf-8")
    policy = publish_policy(session, folder / "policy.toml").digest
    weights = session.store.put_bytes(b"weights").digest
    session.ledger.append(
        [
            ArtifactPublished(
                digest=weights, kind=Kind.CHECKPOINT, form="blob", size=7, origin="imported"
            )
        ]
    )
    names = {f"recipe-{place:03}" for place in range(files)}
    for name in names:
        text = f'name = "{name}"\npolicy = "{policy}"\ngiven = {{ checkpoint = "{weights}" }}\n'
        (folder / f"{name}.toml").write_text(text + EXPORT, encoding="utf-8")
    for name in names:
        (folder / f"{name}.toml").rename(session.home.inbox / "recipe" / f"{name}.toml")
    return names


def _publish(home: Home, folder: Path, files: int) -> set[str]:
    """Publish that many files, many processes at a time; their names."""
    names = {f"source-{place:03}" for place in range(files)}
    at = ["--registry", str(home.root), "publish", "--kind", "source"]

    def publish(name: str) -> None:
        (folder / name).write_text(name, encoding="utf-8")
        subprocess.run([*STILL, *at, str(folder / name)], check=True, stdout=subprocess.DEVNULL)

    with ThreadPoolExecutor(PUBLISHERS) as pool:
        list(pool.map(publish, sorted(names)))
    return names


def _until(told: Path, kind_of_event: str, count: int, **data: str) -> Counter[str]:
    """Wait until the daemon has told so many events, and a second more; how often which name."""
    limit = time.monotonic() + LIMIT_SECONDS
    while Counter(_told(told, kind_of_event, data)).total() < count:
        if time.monotonic() >= limit:
            raise SystemExit(f"the daemon did not tell of {count} times {kind_of_event}")
        time.sleep(0.2)
    time.sleep(1)
    return Counter(_told(told, kind_of_event, data))


def _told(told: Path, kind_of_event: str, data: dict[str, str]) -> Iterator[str]:
    for line in told.read_text(encoding="utf-8").split("\n")[:-1]:
        event = json.loads(line).get("event", {})
        if event.get("type") == kind_of_event and data.items() <= event["data"].items():
            yield str(event["data"].get("name") or event["data"].get("plan"))


def _names(session: Session, kind_of_event: str) -> Iterator[str]:
    """The names behind all events of a type, from the ledger itself."""
    recipes: dict[str, str] = {}
    for event in session.ledger.read():
        if event.type == "artifact.published":
            recipes[event.data["digest"]] = event.data.get("name") or ""
        if event.type == kind_of_event:
            yield _name(event, recipes)


def _name(event: Event, recipes: dict[str, str]) -> str:
    return recipes[event.data["plan"]] if "plan" in event.data else event.data.get("name") or ""


def _report(what: str, found: Counter[str], wanted: set[str], begun: float) -> None:
    lost = len(wanted - set(found))
    doubled = sum(count - 1 for name, count in found.items() if name in wanted)
    seconds = time.perf_counter() - begun
    print(f"{what:10} {len(wanted)}: {lost} lost, {doubled} doubled   ({seconds:.1f} s)")


if __name__ == "__main__":
    main(QUICK_FILES if "--quick" in sys.argv[1:] else FILES)
