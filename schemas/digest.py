r"""Digests: how every blob, tree, artifact and run key is named.

A digest is the BLAKE3 hash (32 bytes, 64 lower-case hex characters) of a byte string. Byte strings
that we make up ourselves (trees, run keys) begin with a tag and version line. So no two kinds of
thing can share a pre-image. The pre-images:

    blob       the content itself
    tree       b"stillhouse tree v1\n" + one line per entry          (store/trees/trees.py)
    run key    b"stillhouse run-key v1\n" + canonical JSON           (registry/planning/runkey.py)
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import StringConstraints

DIGEST_PATTERN = r"^[0-9a-f]{64}$"
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
"""64 lower-case hex characters: a BLAKE3 digest."""

Sha256 = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
"""64 lower-case hex characters: a SHA-256 digest, for the chain and for released files."""

SHORT = 12
"""Characters of a digest that are shown to people; any unique prefix of 4 or more is accepted."""

_DIGEST = re.compile(DIGEST_PATTERN)


def is_digest(text: str) -> bool:
    """Whether `text` is a complete digest."""
    return _DIGEST.fullmatch(text) is not None
