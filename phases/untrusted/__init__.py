"""Files from outside: looked at by our own bounded readers before any library opens them.

Owns the refusals. Rules: nothing here loads a pickle, runs code from a file, imports torch, or
trusts a length that it has read; memory and time stay bounded whatever the file says; every refusal
is an UntrustedFileError that names the file and the first thing that is wrong with it.

    tensors       check_safetensors
    gguf          check_gguf
    pickles       find_pickle: code in disguise, recognised by content
    folder        check_model_folder: a Hugging Face folder
    shapes        check_student_shapes: a Llama config against the tensors beside it
    mlpackage     check_mlpackage
    reading       read_bounded, read_json
    chat          check_chat_template, render_chat(s), try_chats: a template is a program
"""

from __future__ import annotations

from stillhouse.phases.untrusted.chat import (
    check_chat_template,
    render_chat,
    render_chats,
    try_chats,
)
from stillhouse.phases.untrusted.folder import ModelFolderSummary, check_model_folder
from stillhouse.phases.untrusted.gguf import GgufSummary, check_gguf
from stillhouse.phases.untrusted.mlpackage import MlpackageSummary, check_mlpackage
from stillhouse.phases.untrusted.pickles import find_pickle
from stillhouse.phases.untrusted.reading import read_bounded, read_json
from stillhouse.phases.untrusted.shapes import check_student_shapes
from stillhouse.phases.untrusted.tensors import SafetensorsSummary, TensorFact, check_safetensors

__all__ = [
    "GgufSummary",
    "MlpackageSummary",
    "ModelFolderSummary",
    "SafetensorsSummary",
    "TensorFact",
    "check_chat_template",
    "check_gguf",
    "check_mlpackage",
    "check_model_folder",
    "check_safetensors",
    "check_student_shapes",
    "find_pickle",
    "read_bounded",
    "read_json",
    "render_chat",
    "render_chats",
    "try_chats",
]
