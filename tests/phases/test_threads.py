from __future__ import annotations

import random

import torch

from stillhouse.phases.numerics.threads import fixed


def test_threads_and_kernels_are_fixed_inside_and_given_back_after() -> None:
    torch.set_num_threads(1)
    strict = torch.are_deterministic_algorithms_enabled()
    with fixed(2, seed=0):
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled() == strict


def test_the_same_seed_gives_the_same_numbers() -> None:
    drawn = []
    for seed in (3, 3, 4):
        with fixed(1, seed):
            drawn.append((torch.rand(4).tolist(), random.random()))
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
