"""Who is alive: the locks that say so, looked at without keeping them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def held(lock: Path) -> bool:
    """Whether a live process holds this lock. A file that is not there is held by nobody."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look see each other as nobody; closing lets it go.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
