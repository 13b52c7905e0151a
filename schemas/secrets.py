"""What must never be recorded or logged: values of secret variables, URLs that carry a password.

A secret is named, never shown. `config.toml` lists the environment variables that hold one. The
ledger refuses a text that contains such a value, or a URL with userinfo
(`https://user:password@host`). Logs are scrubbed of both. Pure; the environment is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from stillhouse.schemas import canonical

SHORTEST = 6
"""Characters of the shortest value that is looked for; a shorter one is in half of all texts."""

HIDDEN = "***"
"""What stands where a secret was."""

# RFC 3986, section 3.2: the authority ends at `/`, `?` or `#`, and its userinfo at the last `@`.
_USERINFO = r"([A-Za-z][A-Za-z0-9+.-]{0,31}://)(?!\*\*\*@)[^\s/?#\"<>\\]+@"
_IN_TEXT = re.compile(_USERINFO)
_IN_JSON = re.compile(_USERINFO.encode())


def secret_values(environ: Mapping[str, str], names: Iterable[str]) -> tuple[str, ...]:
    """Values of the variables named, of those that are set and long enough to be looked for."""
    values = (environ.get(name, "").strip() for name in names)
    return tuple(value for value in values if len(value) >= SHORTEST)


def scrub(text: str, values: Iterable[str]) -> str:
    """The same text with `***` for each secret value, and for the userinfo of each URL."""
    for value in sorted(values, key=len, reverse=True):  # one may be part of another
        if len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    return _IN_TEXT.sub(rf"\1{HIDDEN}@", text)


def forms_in_json(values: Iterable[str]) -> tuple[bytes, ...]:
    """How secret values would stand inside of canonical JSON."""
    return tuple(canonical.encode(value)[1:-1] for value in values if len(value) >= SHORTEST)


def secret_in_json(data: bytes, forms: Iterable[bytes]) -> str | None:
    """What secret canonical JSON holds, in words that do not tell it; None when it holds none.

    forms: of the secret values, from `forms_in_json`.
    """
    if any(form in data for form in forms):
        return "the value of a secret variable"
    if b"://" in data and (found := _IN_JSON.search(data)):
        return f"a URL with a user or password in it ({found[1].decode()}{HIDDEN}@)"
    return None
