"""What must not be in a published data set: e-mail addresses, phone numbers, UUIDs, foreign hosts.

Rule: shapes, not guesses. A phone number is told from any other number by its plus sign or by its
separators; bare digits (ids, amounts, years) never count, and neither do dates or addresses of
machines. Every repetition is bounded, so no text makes a pattern slow.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

KINDS = ("email", "phone", "uuid", "foreign_hosts")

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}")
_UUID = re.compile(
    r"(?<![0-9A-Za-z])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9A-Za-z])", re.IGNORECASE
)
_PHONE = re.compile(
    r"""(?<![\w.,+-])(?:
        (?!\+\d{1,16}\.\d{1,16}(?![.\d]))                    # a decimal number: +1.23456789
        \+\d{1,3}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]?\d{1,5}){2,6}  # +44 20 7946 0958, +14155550132
      | (?:1[ .-])?\(\d{3}\)[ ]?\d{3}[ .-]\d{4}                # (415) 555-0132
      | (?:1[.-])?\d{3}([.-])\d{3}\1\d{4}                      # 415-555-0132, 415.555.0132
      | \d{3}[ ]\d{3}-\d{4}                                    # 415 555-0132
      | 0[1-9]\d{1,3}[ /-]\d{3,4}[ -]\d{3,4}                   # 020 7946 0958
    )(?![\w]|[.,-]\d)""",
    re.VERBOSE,
)
_PHONE_DIGITS = range(8, 16)
"""E.164 allows fifteen; under eight it is as likely a quantity."""
_URL = re.compile(
    r"(?<![A-Za-z0-9])(?:[a-z][a-z0-9+.-]{1,15}://(?:[^\s/?#@]{0,128}@)?|(?=www\.))"
    r"(\[[0-9a-f:.]{2,45}\]|[^\s/?#:@\"'`<>()\[\]{},;|\\]{1,253})",
    re.IGNORECASE,
)


def hits(texts: Iterable[str], allowed_hosts: Collection[str]) -> dict[str, int]:
    """How often each of KINDS occurs in `texts`. A host is allowed with all its subdomains."""
    found: dict[str, int] = dict.fromkeys(KINDS, 0)
    for text in texts:
        found["email"] += len(_EMAIL.findall(text))
        found["uuid"] += len(_UUID.findall(text))
        found["phone"] += sum(1 for _ in _phones(text))
        found["foreign_hosts"] += sum(not _allowed(h, allowed_hosts) for h in _URL.findall(text))
    return found


def strings(value: object) -> Iterator[str]:
    """Every text in a JSON-like value, names of members included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, member in value.items():
            yield from strings(name)
            yield from strings(member)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from strings(each)


def _phones(text: str) -> Iterator[str]:
    for match in _PHONE.finditer(text):
        if sum(c.isdigit() for c in match[0]) in _PHONE_DIGITS:
            yield match[0]


def _allowed(host: str, allowed_hosts: Collection[str]) -> bool:
    name = host.lower().rstrip(".")
    return any(name == each.lower() or name.endswith("." + each.lower()) for each in allowed_hosts)
