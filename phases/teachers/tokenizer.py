"""Text and chats to tokens, from the files of a model folder.

Rules: only `tokenizer.json` and JSON settings are read, never a pickled or coded tokenizer; the
chat template is a program by a stranger, so phases/untrusted renders it, in a sandbox with a time
limit; special tokens come from the template alone, none are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from stillhouse.phases.untrusted import read_bounded, read_json, render_chats, try_chats
from stillhouse.schemas.canonical import Json
from stillhouse.schemas.digest import Digest
from stillhouse.schemas.errors import PhaseError, UntrustedFileError
from stillhouse.store.disk.hashing import hash_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MAX_TOKENIZER = 64 << 20
_MAX_SETTINGS = 16 << 20
_MAX_TEMPLATE = 1 << 20
"""Bytes of what is read; phases/untrusted/chat.py counts a template's characters."""
_TEMPLATE_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
"""Settings that chat templates may name."""


class ChatTokenizer:
    """A tokenizer with its chat template."""

    def __init__(
        self, tokenizer: Tokenizer, *, digest: Digest, settings: Json, eos_ids: Sequence[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self.digest = digest
        """Of tokenizer.json."""
        self.eos_ids = frozenset(eos_ids)
        """Every token that ends an answer."""
        self.eos_token_id = eos_ids[0]
        """The one that ends an answer in training."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a checked model folder's tokenizer.

        Raises UntrustedFileError when a file is malformed, PhaseError when there is no EOS token.
        """
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        text = _read(path, _MAX_TOKENIZER)
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the Rust library raises nothing narrower
            raise UntrustedFileError(
                f"The teacher's tokenizer.json cannot be read: {error}.",
                remedy="Give a folder with the tokenizer.json of the `tokenizers` library.",
                code="teacher.bad_tokenizer",
            ) from error
        settings = _settings(folder)
        return cls(
            tokenizer,
            digest=hash_file(path).digest,
            settings=settings,
            eos_ids=_eos_ids(folder, settings, tokenizer),
        )

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`; special tokens are recognised, none are added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids`, special tokens included."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=False)
        return text

    def render(self, chats: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
        """Each chat as the text after which the assistant answers.

        Raises UntrustedFileError when the template fails or takes too long, PhaseError when there
        is none.
        """
        return render_chats(self._template(), chats, variables=self._variables())

    def try_render(
        self, chats: Sequence[Sequence[Mapping[str, str]]]
    ) -> list[str | UntrustedFileError]:
        """As `render`, but a chat that the template refuses gets the reason in its place."""
        return try_chats(self._template(), chats, variables=self._variables())

    def _template(self) -> str:
        template = self._settings.get("chat_template")
        if not isinstance(template, str):
            raise PhaseError(
                "The teacher has no chat template.",
                remedy="Use a chat model, or add chat_template.jinja to its folder.",
                code="teacher.no_template",
            )
        return template

    def _variables(self) -> dict[str, str]:
        tokens = {name: _token(self._settings.get(name)) for name in _TEMPLATE_TOKENS}
        return {name: token for name, token in tokens.items() if token}


def _settings(folder: Path) -> Json:
    """`tokenizer_config.json`, with the template of `chat_template.jinja` when that is there."""
    settings = _read_json(folder / "tokenizer_config.json")
    template = folder / "chat_template.jinja"
    if template.is_file():
        settings["chat_template"] = _read(template, _MAX_TEMPLATE)
    return settings


def _eos_ids(folder: Path, settings: Json, tokenizer: Tokenizer) -> list[int]:
    """The tokenizer's own EOS first, then every other one that the model's settings name."""
    own = tokenizer.token_to_id(_token(settings.get("eos_token")) or "")
    stated: list[object] = [own]
    for name in ("generation_config.json", "config.json"):
        ids_there = _read_json(folder / name).get("eos_token_id")
        stated += ids_there if isinstance(ids_there, list) else [ids_there]
    ids = list(dict.fromkeys(each for each in stated if isinstance(each, int)))
    if not ids:
        raise PhaseError(
            "The teacher names no EOS token, so an answer could not end.",
            remedy="Set eos_token in its tokenizer_config.json, or eos_token_id in config.json.",
            code="teacher.no_eos",
        )
    return ids


def _token(setting: object) -> str | None:
    """A special token's text: settings hold it plain or as `{"content": …}`."""
    if isinstance(setting, Mapping):
        setting = setting.get("content")
    return setting if isinstance(setting, str) else None


def _read(path: Path, limit: int) -> str:
    data = read_bounded(
        path,
        limit=limit,
        code="teacher.bad_tokenizer",
        remedy="Give a folder with the tokenizer files that its model was published with.",
    )
    return data.decode("utf-8", errors="replace")


def _read_json(path: Path) -> Json:
    if not path.is_file():
        return {}
    return read_json(path, limit=_MAX_SETTINGS, code="teacher.bad_tokenizer")
