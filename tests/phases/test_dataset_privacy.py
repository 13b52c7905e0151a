"""What counts as private, and what only looks like it."""

from __future__ import annotations

import time

import pytest

from stillhouse.phases.dataset.privacy import KINDS, hits, strings

ALLOWED = ("example.com", "example.org")


def found(text: str) -> dict[str, int]:
    return {kind: n for kind, n in hits([text], ALLOWED).items() if n}


@pytest.mark.parametrize(
    "text",
    [
        "alice@example.com",
        "Write to <j.doe+news@mail.firm.co.uk>, please",
        "mailto:a_b%c@x-y.org.",
        "(bob@host.museum)",
        "jane@münchen.de",
        "jürgen@acme.io",
        "jane\uff20acme.io",
        "jane@почта.рф",
        "jane@acme.xn--p1ai",
    ],
)
def test_e_mail_addresses_are_found(text: str) -> None:
    assert found(text) == {"email": 1}


@pytest.mark.parametrize("text", ["a@b", "@handle", "x @ y.com", "3@4.5", "user@localhost", "a@@b"])
def test_what_only_has_an_at_sign_is_no_address(text: str) -> None:
    assert found(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        "+14155550132",
        "+1 415 555 0132",
        "+44 20 7946 0958",
        "+49 (30) 901820",
        "call +33-1-23-45-67-89 now",
        "(415) 555-0132",
        "(415)555-0132.",
        "415-555-0132",
        "415.555.0132",
        "1-800-555-0199",
        "415 555-0132",
        "020 7946 0958",
        "tel:415-555-0132",
        "+1.415.555.0132",
        "415 555 0132",
        "call 1 415 555 0132 now",
        "415\u00a0555\u00a00132",
        "415\u2011555\u20110132",
        "030 12345678",
        "030/12345678",
        "0171-1234567",
        "06 12 34 56 78",
        "06.12.34.56.78",
    ],
)
def test_phone_numbers_are_found(text: str) -> None:
    assert found(text) == {"phone": 1}


@pytest.mark.parametrize(
    "text",
    [
        "4155550132",
        "2023-10-01",
        "01-02-2023",
        "2023-10-01 12:30:00",
        "20231001-123456",
        "12.05.2024",
        "order 123-45-6789",
        "0000-0000-0000",
        "4111 1111 1111 1111",
        "192.168.100.200",
        "1,234,567.89",
        "3.14159265358979",
        "the numbers 100 200 3000",
        "the numbers 200 300 4000 5000",
        "the numbers 10 200 300 4000",
        "[100, 200, 300]",
        "[200, 300, 4000]",
        "01 02 03 04 05 06",
        "01-23-45-67-89-ab",
        "01.02.2024 10:00",
        "37.7749, -122.4194",
        "ISBN 0-306-40615-2",
        "version 1.2.3",
        "$415.55",
        "+5 degrees, +12.5",
        "+1.2345678901",
        "between +10 -20 +30",
        "x+12345678",
        "1e+10000000",
        "[415, 555, 0132]",
        "ISBN 978-3-16-148410-0",
        "v1.222.333.4444",
        "$1.200.000",
    ],
)
def test_other_numbers_are_no_phone_numbers(text: str) -> None:
    assert found(text) == {}


def test_uuids_are_found_and_other_hex_is_not() -> None:
    assert found("id 123e4567-E89B-12d3-a456-426614174000.") == {"uuid": 1}
    assert found("123e4567-e89b-12d3-a456-4266141740001") == {}
    assert found("123e4567e89b12d3a456426614174000") == {"uuid": 1}
    assert found("d41d8cd98f00b204e9800998ecf8427e d41d8cd98f004204a9800998ecf8427e") == {"uuid": 1}
    assert found("123e4567e89b12d3a45642661417400") == {}
    assert found("123e4567e89b12d3a456426614174000" * 2) == {}
    assert found("x123e4567-e89b-12d3-a456-426614174000") == {}


@pytest.mark.parametrize(
    "text",
    [
        "https://evil.org/path",
        "see http://192.168.1.1.",
        "HTTPS://Evil.Org",
        "ftp://files.net/x",
        "https://user:secret@evil.org/",
        "www.evil.org",
        "http://[2001:db8::1]/",
        "http://notexample.com",
        "http://example.com.evil.org",
        '{"url":"http://evil.org"}',
        "http://evil.com\\@example.com/",
        "http://a@example.com@evil.com/",
        f"http://example.com:{'x' * 500}@evil.com/",
        "http://evil.com\uff0fexample.com",
        "api.acme.io/v1",
        "see api.acme.io:8443.",
        "www.acme.io/v1",
        "münchen.de/rathaus",
        "10.1.2.3:8080",
        "10.1.2.3/admin",
        "//evil.com/x",
        "<img src='//evil.com'>",
        "//evil.rocks/x",
    ],
)
def test_hosts_that_are_not_allowed_are_found(text: str) -> None:
    assert found(text)["foreign_hosts"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/path?q=evil.org",
        "http://api.EXAMPLE.com:8080",
        "www.example.org.",
        "evil.org without a scheme",
        "a://b is allowed? no: one letter is a drive",
        "http:// nothing",
        "api.example.com/v1",
        "//example.com/x",
        "example.org:8080",
        "math.factorial and math.factorial/2",
        "a.b.c",
        "a.b.c/d",
        "data.csv",
        "src/data.csv/x",
        "// foo.bar of a comment",
        "//foo.bar() of a comment",
        "1.2.3",
        "1.2.3.4",
        "10.0.0.0/8",
        "300.1.2.3:80",
        "12:30:45.123",
        "and/or, km/h, 3.5/4.2",
        "me.com",
    ],
)
def test_allowed_hosts_and_plain_words_are_not(text: str) -> None:
    assert found(text) == {}


def test_every_text_counts_and_every_kind_is_reported() -> None:
    counts = hits(["a@b.org and c@d.org", "e@f.org", "415-555-0132"], ALLOWED)
    assert counts == {"email": 3, "phone": 1, "uuid": 0, "foreign_hosts": 0}
    assert tuple(counts) == KINDS


def test_texts_are_found_at_any_depth() -> None:
    assert set(strings({"a": ["b", {"c": ("d", 1, None)}], "e": "f"})) == set("abcdef")


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "1-", "+1 ", "a@", "a.", "http://", "(415) ", "0123-", "a@a.", "1.", "//a.", "06 "],
)
def test_no_text_makes_the_patterns_slow(unit: str) -> None:
    begun = time.process_time()
    hits([unit * (100_000 // len(unit))], ALLOWED)
    assert time.process_time() - begun < 3
