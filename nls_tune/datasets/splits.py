"""Stratified splits that are nested, of exact size, and the same on every machine."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np


def stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Order the samples so that every prefix, and so every suffix, is stratified.

    In each prefix of m of N samples, a class with n samples has ``m * n / N`` of them, rounded up or down. A
    split is then a cut of the order: sizes are exact, and a smaller split is a part of a larger one.

    The j-th sample of a class may take the places from ``floor(j * N / n)`` up to, but not including,
    ``ceil((j + 1) * N / n)``; giving each place to the sample whose time runs out first meets all of these
    windows (Steiner and Yeomans, Management Science 39(6), 1993). Whole numbers only, so no rounding can differ
    between machines. ``rng`` decides which sample of a class comes first; nothing else is random.
    """
    total = len(labels)
    arrivals: list[list[tuple[int, int, int]]] = [[] for _ in range(total)]
    for rank, value in enumerate(np.unique(labels)):
        members = rng.permutation(np.flatnonzero(labels == value))
        count = len(members)
        for place, sample in enumerate(members.tolist()):
            deadline = -(-(place + 1) * total // count)
            arrivals[place * total // count].append((deadline, rank, sample))
    order = np.empty(total, dtype=np.int64)
    waiting: list[tuple[int, int, int]] = []
    for position, arriving in enumerate(arrivals):
        for entry in arriving:
            heapq.heappush(waiting, entry)
        order[position] = heapq.heappop(waiting)[2]
    return order


def prefix_of_units(units: np.ndarray, labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return a stratified share of the samples, as sorted rows, in which no unit is divided.

    ``units`` number what must stay together, by first appearance; where each has one sample the size is exact. At
    least one unit is taken and one is left, if there are two.
    """
    names, first, counts = np.unique(units, return_index=True, return_counts=True)
    order = stratified_order(labels[first], rng)
    ends = np.cumsum(counts[order])
    target = round(len(units) * share)
    number = int(np.clip(np.argmin(np.abs(ends - target)) + 1, 1, max(1, len(order) - 1)))
    return np.flatnonzero(np.isin(units, names[order[:number]]))


def cut_into_folds(
    labels: np.ndarray, units: np.ndarray | None, folds: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Cut samples into stratified parts of about the same size, as sorted rows, in which no unit is divided.

    ``units`` are as in ``prefix_of_units``; None where each sample is alone. Large units can leave fewer parts.
    """
    if units is None:
        return [np.sort(part) for part in np.array_split(stratified_order(labels, rng), folds)]
    names, first, counts = np.unique(units, return_index=True, return_counts=True)
    order = stratified_order(labels[first], rng)
    middles = np.cumsum(counts[order]) - counts[order] / 2
    fold_of = np.empty(len(names), dtype=np.int64)
    fold_of[order] = middles * folds // len(units)
    parts = [np.flatnonzero(fold_of[np.searchsorted(names, units)] == fold) for fold in range(folds)]
    return [part for part in parts if len(part)]


def number_units(digests: Sequence[Any], groups: np.ndarray | None, *, tied: bool) -> np.ndarray:
    """Number what no split divides, by first appearance: equal inputs, and whatever shares a group.

    Where there are groups, equal inputs are only kept together if they are ``tied``.
    """
    units = _by_appearance(digests)
    if groups is None:
        return units
    if not tied:
        units = np.arange(len(digests))
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # A sample without a group is alone in one.
    named = _by_appearance([("row", i) if group is None else group for i, group in enumerate(groups.tolist())])
    size = int(units.max()) + 1 + int(named.max()) + 1
    edges = (np.ones(len(units)), (units, named + int(units.max()) + 1))
    found = connected_components(coo_array(edges, shape=(size, size)), directed=False)[1]
    return _by_appearance(found[units].tolist())


def _by_appearance(values: Sequence[Any]) -> np.ndarray:
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)
