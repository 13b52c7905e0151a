"""An event-sourced artifact registry that takes a teacher model to a Core ML release.

    import stillhouse as sh

    registry = sh.open()                          # STILL_REGISTRY, else the nearest .still/
    artifact = registry.get("checkpoint@latest")  # a digest prefix, a tag, or kind@latest
    registry.sql("SELECT kind, count(*) FROM artifacts GROUP BY kind").dicts()

Names are imported on first use: `import stillhouse` itself loads nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # known to type checkers; `typing` costs 10 ms
if TYPE_CHECKING:
    from stillhouse.api import Artifact, Registry, init, open  # noqa: A004  # as sh.open
    from stillhouse.registry.projection.sandbox import Rows
    from stillhouse.schemas.errors import StillError
    from stillhouse.schemas.event import Event

__all__ = ["Artifact", "Event", "Registry", "Rows", "StillError", "init", "open"]

_HOMES = {
    "Artifact": "stillhouse.api",
    "Event": "stillhouse.schemas.event",
    "Registry": "stillhouse.api",
    "Rows": "stillhouse.registry.projection.sandbox",
    "StillError": "stillhouse.schemas.errors",
    "init": "stillhouse.api",
    "open": "stillhouse.api",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
