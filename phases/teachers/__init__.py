"""Teachers: who knows the right distribution, wherever it runs.

`base` holds the protocol, `tokenizer` text and chats to tokens, `local` a model on this machine,
`gguf` the way from a GGUF file to a Hugging Face folder. Rules: nothing of a model from outside is
opened before phases/untrusted looked at it, and no code or pickle in it is ever loaded; what a
teacher answers to one example depends on that example alone, never on what was asked beside it.
"""

from __future__ import annotations

from stillhouse.phases.teachers.base import Generated, Passage, Prompt, Sampling, Teacher
from stillhouse.phases.teachers.gguf import dequantise
from stillhouse.phases.teachers.local import LocalTeacher
from stillhouse.phases.teachers.tokenizer import ChatTokenizer

__all__ = [
    "ChatTokenizer",
    "Generated",
    "LocalTeacher",
    "Passage",
    "Prompt",
    "Sampling",
    "Teacher",
    "dequantise",
]
