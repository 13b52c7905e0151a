"""From a GGUF file to a Hugging Face folder in fp32.

Rules: the file is checked before it is parsed; the folder appears whole or not at all, so a killed
conversion leaves nothing that looks finished; same file, same bytes.

Transformers does the reading (it knows the quantisations and rebuilds the tokenizer). Not obvious:
without `dequantize=True` it keeps the packed weights and then refuses to save them; it wants
`accelerate` installed for this one job; and it rebuilds every BPE tokenizer with GPT-2's
pre-tokenizer whatever `tokenizer.ggml.pre` says. For SmolLM2 the difference (digits apart) changes
no token, because none of its merges joins an ASCII digit to anything.
"""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from stillhouse.phases.untrusted import check_gguf
from stillhouse.schemas.errors import PhaseError
from stillhouse.store.disk.durable import writing

_NAME = "model.gguf"
"""Transformers wants a folder and a file name in it; our blobs are named by their digests."""


def dequantise(gguf: Path, folder: Path) -> None:
    """Write the model in `gguf` as `folder`: fp32 safetensors, config, tokenizer, chat template.

    Returns at once when `folder` is there. Raises UntrustedFileError when the file is malformed,
    PhaseError when its model or tokenizer is not supported, StorageError.
    """
    if folder.exists():
        return
    check_gguf(gguf)
    half = folder.with_name(folder.name + ".half")
    with writing(folder.parent):
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        (half / _NAME).symlink_to(gguf.resolve())
    parts = _read(half)
    with writing(folder.parent):
        for part in parts:
            part.save_pretrained(half)
        (half / _NAME).unlink()
        half.rename(folder)


def _read(source: Path) -> tuple[Any, Any]:
    """The model and the tokenizer of the GGUF file in the folder `source`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    quiet()
    try:
        # The bar of this one conversion does not know about disable_progress_bar.
        with redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(
                source,
                gguf_file=_NAME,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                local_files_only=True,
                trust_remote_code=False,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                source, gguf_file=_NAME, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise PhaseError(
            f"The GGUF teacher cannot be read: {error}",
            remedy="Use an architecture and quantisation that transformers reads from GGUF,"
            " or give the teacher as a Hugging Face folder.",
            code="teacher.unsupported_gguf",
        ) from error
    return model, tokenizer


def quiet() -> None:
    """Stop transformers' progress bars and advice, which would drown a worker's log."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
