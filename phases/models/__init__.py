"""The student: a plain PyTorch Llama-architecture decoder, its folder format and greedy decoding.

Owns the one model that teacher, untrained and trained students are all loaded into, so that every
comparison runs the same code. Rules: parameter names and `config.json` are Hugging Face's, so a
folder goes either way unchanged; weights travel as safetensors, never as pickle; whatever this
model cannot express (RoPE scaling, biases, other activations) is refused, never approximated.
"""

from __future__ import annotations

from stillhouse.phases.models.config import StudentConfig
from stillhouse.phases.models.decoding import Session, generate
from stillhouse.phases.models.folder import (
    from_shape,
    from_teacher_layers,
    load_checkpoint,
    read_config,
    save_checkpoint,
    write_tensors,
)
from stillhouse.phases.models.llama import KeyValues, Student

__all__ = [
    "KeyValues",
    "Session",
    "Student",
    "StudentConfig",
    "from_shape",
    "from_teacher_layers",
    "generate",
    "load_checkpoint",
    "read_config",
    "save_checkpoint",
    "write_tensors",
]
