"""A whole recipe that runs in seconds: a random teacher, a real tokenizer, made-up functions.

`write(folder)` writes everything the recipe names and returns its path. Nothing is mocked: the same
phases run on it that run on SmolLM2, only smaller.
"""

from __future__ import annotations

import json
from pathlib import Path

VERBS = ("get", "set", "list", "find", "open", "close", "count", "send", "read", "move")
NOUNS = ("weather", "ticket", "invoice", "route", "song", "file", "user", "order")
CITIES = ("Berlin", "Oslo", "Lima", "Kyoto", "Cairo", "Quito")

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

POLICY = """
name = "tiny"
[tiers]
tier_1 = ["verification.device_predict"]
tier_2 = [
    "environment.versions", "dataset.schema", "dataset.leakage", "dataset.privacy",
    "training.integrity", "export.parity", "export.causality", "export.prefill_decode",
    "conversion.complete", "verification.files", "verification.schema", "verification.io",
    "verification.state", "verification.ops", "verification.numeric_fp32",
    "verification.caches", "verification.decode_equals_prefill", "evaluation.measured",
]
[capabilities]
matches_checkpoint = ["verification.numeric_fp32", "verification.caches"]
stateful_decode = [
    "verification.state", "verification.caches", "verification.decode_equals_prefill",
]
runs_on_device = ["verification.device_predict"]
[gates."environment.versions"]
checks = [{ metric = "unsupported", op = "==", value = 0 }]
[gates."dataset.schema"]
checks = [{ metric = "schema.errors", op = "==", value = 0 }]
[gates."dataset.leakage"]
checks = [
    { metric = "leakage.content", op = "==", value = 0 },
    { metric = "leakage.functions", op = "==", value = 0 },
]
[gates."dataset.privacy"]
checks = [{ metric = "privacy.email", op = "==", value = 0 }]
[gates."training.integrity"]
checks = [
    { metric = "nonfinite_steps", op = "==", value = 0 },
    { metric = "checkpoint.nonfinite", op = "==", value = 0 },
]
[gates."export.parity"]
checks = [{ metric = "parity.max_abs", op = "<=", value = 1e-2 }]
[gates."export.causality"]
checks = [{ metric = "causality.max_abs_change", op = "<=", value = 1e-4 }]
[gates."export.prefill_decode"]
slots = "export/decode-*"
checks = [{ metric = "prefill_decode.max_abs", op = "<=", value = 1e-2 }]
[gates."conversion.complete"]
checks = [
    { metric = "io.mismatches", op = "==", value = 0 },
    { metric = "state.missing_writes", op = "==", value = 0 },
]
[gates."verification.files"]
checks = [{ metric = "files.mismatches", op = "==", value = 0 }]
[gates."verification.schema"]
checks = [{ metric = "schema.errors", op = "==", value = 0 }]
[gates."verification.io"]
checks = [{ metric = "io.mismatches", op = "==", value = 0 }]
[gates."verification.state"]
checks = [{ metric = "state.mismatches", op = "==", value = 0 }]
[gates."verification.ops"]
checks = [{ metric = "ops.unknown", op = "==", value = 0 }]
[gates."verification.numeric_fp32"]
checks = [{ metric = "fp32.kl", op = "<=", value = 1e-3 }]
[gates."verification.caches"]
slots = "verification/prefill-*"
checks = [
    { metric = "fp32.cache.relative", op = "<=", value = 2e-2 },
    { metric = "declared.cache.relative", op = "<=", value = 2e-2 },
]
[gates."verification.decode_equals_prefill"]
slots = "verification/decode-*"
checks = [{ metric = "decode.kl", op = "<=", value = 1e-2 }]
[gates."verification.device_predict"]
checks = [{ metric = "device.kl", op = "<=", value = 1e-2 }]
[gates."evaluation.measured"]
checks = [{ metric = "trained.kl", op = "<=", value = 100, min_n = 4 }]
"""

RECIPE = """
name = "tiny"
tier = "tier_2"
policy = "policy.toml"

[teacher]
model = "teacher"
name = "tiny-random"

[dataset]
sources = [{ format = "jsonl", questions = "questions.jsonl" }]
answers = "given"
splits = { train = 32, held_out = 8, evaluation = 8 }
max_tokens = 400
top_k = 16
threads = 1

[student]
layers = [0, 2]

[training]
steps = 6
batch_size = 4
grad_accumulation = 2
checkpoint_every = 2
evaluate_every = 3
threads = 1

[export]
prefill = [16, 24]
primary = 16
decode_capacity = 24
threads = 1

[conversion]
threads = 1

[verification]
sequences = 2
decode_steps = 4
threads = 1

[evaluation]
slots = 12
free_form = 2
max_new_tokens = 8
resamples = 100
threads = 1

[deployment]
"""


def write(folder: Path) -> Path:
    """Write teacher, questions, policy and recipe into `folder`; the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_teacher(folder / "teacher")
    lines = [json.dumps(question) for question in questions()]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "policy.toml").write_text(POLICY, encoding="utf-8")
    recipe = folder / "tiny.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe


def questions() -> list[dict[str, object]]:
    """Two questions for each of 80 functions."""
    found: list[dict[str, object]] = []
    for place, (verb, noun) in enumerate((v, n) for v in VERBS for n in NOUNS):
        name = f"{verb}_{noun}"
        tool = {
            "name": name,
            "description": f"{verb} a {noun}",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        }
        for turn in range(2):
            city = CITIES[(place + turn) % len(CITIES)]
            answer = json.dumps({"name": name, "arguments": {"city": city}}, separators=(",", ":"))
            found.append(
                {"prompt": f"{verb} the {noun} in {city}", "tools": [tool], "answer": answer}
            )
    return found


def write_teacher(folder: Path) -> None:
    """A random four-layer Llama with a byte-level BPE tokenizer, as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([json.dumps(q) for q in questions()], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",  # noqa: S106  # a token of a vocabulary
        pad_token="<|end|>",  # noqa: S106
    )
    fast.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=0,
        bos_token_id=0,
        pad_token_id=0,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
