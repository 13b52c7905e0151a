"""How much a sample says about the whole. Pure.

A draw is one byte of the store, each as likely as any other. The object that holds it is verified
whole. If damaged objects hold the fraction p of all bytes, then n draws miss all of them with
probability (1 - p)^n. So when nothing is found, p is below 1 - (1 - confidence)^(1/n) with that
confidence. For 95 % and many draws that is about 3/n (the "rule of three"). This holds only if n
does not depend on what is found, so it is fixed beforehand from the sizes alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from random import Random

CONFIDENCE = 0.95
_MOST = 1 << 40


def draws_for(sizes: Sequence[int], share: float) -> int:
    """How many draws read this share (0 to 1) of all bytes, as is to be expected; at least one."""
    total = sum(sizes)
    if total == 0:
        return 0
    low, high = 1, 1
    while _expected(sizes, total, high) < share * total and high < _MOST:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        if _expected(sizes, total, middle) < share * total:
            low = middle + 1
        else:
            high = middle
    return low


def chosen(sizes: Sequence[int], draws: int, chance: Random) -> list[int]:
    """The places of the objects that hold the drawn bytes, each once, in order."""
    ends = list(accumulate(sizes))
    if not ends or ends[-1] == 0:
        return []
    return sorted({bisect_right(ends, chance.randrange(ends[-1])) for _ in range(draws)})


def bound(draws: int, confidence: float = CONFIDENCE) -> float:
    """The fraction of bytes that damaged objects hold at most, when none of the draws met one."""
    return 1.0 if draws == 0 else -math.expm1(math.log1p(-confidence) / draws)


def _expected(sizes: Sequence[int], total: int, draws: int) -> float:
    """Bytes of the objects that so many draws meet, on average."""
    return sum(
        size * (1.0 if size == total else -math.expm1(draws * math.log1p(-size / total)))
        for size in sizes
    )
