from __future__ import annotations

import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.phases.untrusted import check_chat_template, render_chat, render_chats
from stillhouse.schemas.errors import UntrustedFileError

CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""

# Uses what real templates use: namespaces, loop controls, tojson, macros, slices, tests, tokens.
RICH = """{%- macro call(c) -%}<call>{{ c | tojson }}</call>{%- endmacro -%}
{%- set ns = namespace(first=true, names=[]) -%}
{{ bos_token }}
{%- if tools is not none %}{{ raise_exception('no tools here') }}{% endif %}
{%- set date = 'then' %}
{%- if strftime_now is defined %}{% set date = 'today' %}{% endif %}
{% for message in messages[0:10] %}
    {% if message.role == 'skip' %}{% continue %}{% endif %}
    {% if message.role == 'stop' %}{% break %}{% endif %}
{% generation %}{{ loop.index0 }} {{ message['content'] | trim }}{% endgeneration %}

    {% for c in message.calls or [] %}
{{ call(c) }}
    {% endfor %}
{% set ns.first = false %}
{% endfor %}
{{ ns.first }} {{ date }} {{ dict(a=1) | tojson(indent=2) }} {{ eos_token }}"""

MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "  hi <é> & 'quotes' \n"},
    {"role": "skip", "content": "unseen"},
    {"role": "assistant", "content": "", "calls": [{"name": "f", "arguments": {"x": "ä<b>"}}]},
    {"role": "stop", "content": "end"},
    {"role": "user", "content": "after the end"},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def code_of(template: str, **options: float) -> str:
    with pytest.raises(UntrustedFileError) as error:
        render_chat(template, MESSAGES, variables=TOKENS, **options)  # type: ignore[arg-type]  # seconds or max_chars
    assert error.value.remedy
    return error.value.code


def test_a_template_is_rendered_with_and_without_the_generation_prompt() -> None:
    chat = [{"role": "user", "content": "hi"}]
    said = "<|im_start|>user\nhi<|im_end|>\n"
    assert render_chat(CHATML, chat, variables={}, add_generation_prompt=False) == said
    assert render_chat(CHATML, chat, variables={}) == said + "<|im_start|>assistant\n"


def test_rendering_equals_transformers() -> None:
    theirs = pytest.importorskip("transformers.utils.chat_template_utils")
    for template in (CHATML, RICH.replace("'today'", "'then'")):
        expected, _ = theirs.render_jinja_template(
            [MESSAGES], chat_template=template, add_generation_prompt=True, **TOKENS
        )
        assert [render_chat(template, MESSAGES, variables=TOKENS)] == expected


def test_a_prompt_does_not_depend_on_the_day() -> None:
    assert " then " in render_chat(RICH, MESSAGES, variables=TOKENS)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.text(max_size=50), max_size=5))
def test_any_text_passes_through_unchanged(texts: list[str]) -> None:
    template = "{% for m in messages %}{{ m.content }}|{% endfor %}"
    chat = [{"role": "user", "content": text} for text in texts]
    assert render_chat(template, chat, variables={}) == "".join(f"{text}|" for text in texts)


def test_a_thousand_chats_cost_one_process() -> None:
    chats = [[{"role": "user", "content": f"question {n}"}] for n in range(1000)]
    start = time.process_time()
    texts = render_chats(CHATML, chats, variables={})
    assert [f"question {n}" in text for n, text in enumerate(texts)] == [True] * 1000
    assert time.process_time() - start < 2.0


def test_no_chats_are_no_texts() -> None:
    assert render_chats(CHATML, [], variables={}) == []


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**12) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set x = 9 ** (9 ** 9) %}",
        "{{ messages[9 ** (9 ** 9)] }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(9999) %}{% set a = ([1] * 9999999) | sum %}{% endfor %}",
    ],
)
def test_an_endless_template_is_stopped(template: str) -> None:
    start = time.monotonic()
    assert code_of(template, seconds=0.4, max_chars=1 << 30) == "chat_template.endless"
    assert time.monotonic() - start < 15.0  # a busy machine; alone it takes half a second


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 2000000 }}",
        "{{ 'x' * 10**11 }}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ [messages] * 10**10 }}",
    ],
)
def test_a_template_that_renders_too_much_is_stopped(template: str) -> None:
    assert code_of(template) == "chat_template.too_long"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not bound address space")
def test_memory_is_bounded_even_when_the_text_is_short() -> None:
    assert code_of("{{ ('x' * (2 * 10**9)) | length }}") == "chat_template.too_long"


@pytest.mark.parametrize(
    "template",
    [
        "{% if %}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% set n = namespace(__class__=1) %}",
        "{{ messages.append(1) }}",
        "{{ '%s' % 1 / 0 }}",
        "{% include '/etc/passwd' %}",
        "{{ messages | tojson(indent={}) }}",
    ],
)
def test_a_template_that_fails_or_tries_to_escape_is_refused(template: str) -> None:
    assert code_of(template) == "chat_template.failed"


def test_the_template_s_own_complaint_is_passed_on() -> None:
    with pytest.raises(UntrustedFileError, match="roles must alternate"):
        render_chat("{{ raise_exception('roles must alternate') }}", MESSAGES, variables={})


def test_a_template_longer_than_any_honest_one_is_refused_unrendered() -> None:
    check_chat_template("x" * 100_000)
    with pytest.raises(UntrustedFileError) as error:
        check_chat_template("x" * 300_000)
    assert error.value.code == "chat_template.too_long"
    assert code_of("x" * 300_000) == "chat_template.too_long"


def test_the_child_does_not_see_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    seen: list[dict[str, str]] = []
    real = subprocess.Popen

    def spy(*arguments: object, **options: object) -> object:
        seen.append(options["env"])  # type: ignore[arg-type]  # we pass a mapping
        return real(*arguments, **options)  # type: ignore[call-overload]  # passed through

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr("stillhouse.phases.untrusted.chat.subprocess.Popen", spy)
    render_chat("x", [], variables={})
    assert "HF_TOKEN" not in seen[0]
