"""What must not be in a published data set: e-mail addresses, phone numbers, UUIDs, foreign hosts.

Rule: shapes, not guesses, in text whose compatibility forms (full-width letters, odd spaces) are
made plain first. A phone number is told from any other number by its plus sign, or by separators
where a national form has them. Every repetition is bounded, so no text makes a pattern slow.

Left out on purpose, because other things look the same: bare digits (ids, amounts, years), a host
with neither scheme nor path nor port (`evil.org`, like `math.factorial`), one without scheme under
a rare top-level domain, an address of a machine alone or as a network (`10.0.0.0/8`), UUIDs without
hyphens that state no version (MD5), what is written out (`jane at acme dot io`) or escaped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping

KINDS = ("email", "phone", "uuid", "foreign_hosts")

_EMAIL = re.compile(
    r"[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})", re.IGNORECASE
)
_UUID = re.compile(
    r"""(?<![0-9A-Za-z])(?:
        [0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}
      | [0-9a-f]{12}[1-8][0-9a-f]{3}[89ab][0-9a-f]{15}  # version and variant (RFC 9562)
    )(?![0-9A-Za-z])""",
    re.IGNORECASE | re.VERBOSE,
)
_PHONE = re.compile(
    r"""(?<![\w.,+-])(?:
        (?!\+\d{1,16}\.\d{1,16}(?![.\d]))                    # a decimal number: +1.23456789
        \+\d{1,3}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]?\d{1,5}){2,6}  # +44 20 7946 0958, +14155550132
      | (?:1[ .-])?\(\d{3}\)[ ]?\d{3}[ .-]\d{4}                # (415) 555-0132
      | (?:1[.-])?\d{3}([.-])\d{3}\1\d{4}                      # 415-555-0132, 415.555.0132
      | \d{3}[ ]\d{3}-\d{4}                                    # 415 555-0132
      | (?<!\d[ ])(?:1[ ])?[2-9]\d{2}[ ][2-9]\d{2}[ ]\d{4}(?![ ]\d)  # 415 555 0132
      | 0[1-9]\d{1,3}[ /-]\d{3,4}[ -]\d{3,4}                   # 020 7946 0958
      | (?<!\d[ ])0[1-9]\d{1,3}[ /-]\d{6,8}(?![ ]\d)           # 030 12345678, 0171-1234567
      | (?<!\d[ ])0[1-9]([ .-])\d{2}(?:\2\d{2}){3}(?!-\w|[ ]\d)  # 06 12 34 56 78
    )(?![\w]|[.,-]\d)""",
    re.VERBOSE,
)
_PHONE_DIGITS = range(8, 16)
"""E.164 allows fifteen; under eight it is as likely a quantity."""
_DOMAINS = (
    "com|org|net|edu|gov|mil|int|info|biz|io|ai|co|app|dev|cloud|online|site|store|tech|xyz|me|tv"
    "|ar|at|au|be|br|ca|ch|cn|cz|de|dk|es|eu|fi|fr|ie|it|jp|kr|mx|nl|nz|pl|pt|ru|se|tr|uk|us|za"
)
"""Top-level domains under which a name with a path is a host. No endings of files or methods."""
_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_URL = re.compile(
    rf"""(?:
        # With a scheme. Browsers take a backslash for a slash, and the last @ for the only one.
        (?<![A-Za-z0-9])(?:[a-z][a-z0-9+.-]{{1,15}}://(?:[^\s/?#\\]{{0,2048}}@)?|(?=www\.))
        (?P<url>\[[0-9a-f:.]{{2,45}}\]|[^\s/?#:@"'`<>()\[\]{{}},;|\\]{{1,253}})
      | (?<![\w:/\\.])//(?P<slashes>(?:[\w-]{{1,63}}\.){{1,8}}
            (?:[^\W\d_]{{2,24}}(?=/)|(?:{_DOMAINS})(?=[:?#\s"'`<>)]|$)))   # //evil.com/x
      | (?<![\w@./:\\-])(?P<bare>(?:[\w-]{{1,63}}\.){{1,8}}(?:{_DOMAINS}))
            (?=(?::\d{{2,5}})?/[\w~%?\#]|:\d{{2,5}}(?!\d))                # api.acme.io/v1
      | (?<![\w@./:\\-])(?P<machine>(?:{_BYTE}\.){{3}}{_BYTE})
            (?=(?::\d{{2,5}})?/[a-z~%?\#]|:\d{{2,5}}(?!\d))               # 10.1.2.3:8080
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def hits(texts: Iterable[str], allowed_hosts: Collection[str]) -> dict[str, int]:
    """How often each of KINDS occurs in `texts`. A host is allowed with all its subdomains."""
    found: dict[str, int] = dict.fromkeys(KINDS, 0)
    for text in map(_plain, texts):
        found["email"] += len(_EMAIL.findall(text))
        found["uuid"] += len(_UUID.findall(text))
        found["phone"] += sum(1 for _ in _phones(text))
        found["foreign_hosts"] += sum(not _allowed(h, allowed_hosts) for h in _hosts(text))
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


def _plain(text: str) -> str:
    """The text's compatibility form, with one kind of hyphen and of full stop."""
    return unicodedata.normalize("NFKC", text).translate({0x2010: "-", 0x3002: "."})


def _hosts(text: str) -> Iterator[str]:
    for match in _URL.finditer(text):
        yield match[str(match.lastgroup)]


def _phones(text: str) -> Iterator[str]:
    for match in _PHONE.finditer(text):
        if sum(c.isdigit() for c in match[0]) in _PHONE_DIGITS:
            yield match[0]


def _allowed(host: str, allowed_hosts: Collection[str]) -> bool:
    name = host.lower().rstrip(".")
    return any(name == each.lower() or name.endswith("." + each.lower()) for each in allowed_hosts)
