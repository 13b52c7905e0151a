"""Fixed threads, fixed seeds, deterministic kernels: what makes a run repeatable on one machine.

Rule: a phase that computes with PyTorch does so inside `fixed`. Sums split over another number of
threads may round differently, so the number is a parameter of the phase and part of its run key.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fixed(threads: int, seed: int) -> Iterator[None]:
    """Compute with exactly `threads` threads, deterministic kernels and seeded global generators.

    Threads and the choice of kernels are given back afterwards; seeds are not. Inter-op threads are
    left alone: eager PyTorch on a CPU starts no work on them. An operation without a deterministic
    kernel raises RuntimeError (torch.use_deterministic_algorithms).
    """
    import torch

    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)  # torch's own signature
    # Filling fresh memory with NaN guards against reading it, which none of our kernels does, and
    # costs a pass over every intermediate.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict)
