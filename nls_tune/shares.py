"""Splitting a whole number by shares."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def largest_remainder(total: int, shares: Sequence[float]) -> list[int]:
    """Split a whole number by shares: floors first, the rest to the largest remainders, ties to the first.

    Args:
        total: What to split.
        shares: Non-negative weights, not all 0.

    Returns:
        Whole numbers that add up to ``total``.
    """
    # In fractions: rounding would break ties that are exact.
    whole = [Fraction(share) for share in shares]
    exact = [total * share / sum(whole) for share in whole]
    parts = [int(x) for x in exact]
    order = sorted(range(len(shares)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts
