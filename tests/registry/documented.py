"""The audits of docs/ledger.md that anyone can run, as SQL."""

from __future__ import annotations

import re
from pathlib import Path

_DOCUMENT = Path(__file__).parents[2] / "docs" / "ledger.md"


def documented(marker: str) -> str:
    """The SQL of docs/ledger.md that has `marker` in it."""
    blocks = re.findall(r"```sql\n(.*?)```", _DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if marker in block]
    return str(found)


OF_THE_LEDGER = documented("read_csv")
"""Counts lines of events.log that are not what the chain says."""
OF_THE_PROJECTION = documented("sha256(body::VARCHAR)")
"""The same of the projection's copies."""
