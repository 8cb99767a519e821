"""How noise levels are written: one spelling each, in commands and in files."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nls_tune.errors import InputError, unknown_name

_RATE_KINDS = ("symmetric", "pairflip", "asymmetric", "swap", "instance")
#: Levels of data of which every item has labels of several annotators.
_ANNOTATOR_KINDS = ("majority", "soft", "dawid-skene", "annotator")
_KINDS = ("clean", *_RATE_KINDS, "matrix", "human", "given", *_ANNOTATOR_KINDS)
#: What kinds with a source call it.
_SOURCES = {"matrix": "a file", "human": "a label set", "annotator": "a name"}
_HUMAN_NAMES = ("worst", "aggre", "random1", "random2", "random3", "noisy")
_HUMAN_ALIASES = {"worse": "worst", "aggregate": "aggre"}
_EXAMPLES = {"matrix": "matrix:FILE", "human": "human:worst", "annotator": "annotator:NAME"} | {
    kind: f"{kind}:0.4" for kind in _RATE_KINDS
}


@dataclass(frozen=True)
class NoiseLevel:
    """One kind and strength of label noise; ``str()`` gives its one stored spelling.

    The kinds ``symmetric``, ``pairflip``, ``asymmetric``, ``swap`` and ``instance`` have a ``rate``, the share of
    flipped labels in [0, 1]. ``matrix`` has a file, ``human`` a label set (aliases are mapped) and ``annotator`` a name
    as its ``source``; ``clean``, ``given``, ``majority``, ``soft`` and ``dawid-skene`` have neither. Kinds may be given
    in any case.

    Raises:
        InputError: An unknown kind or label set, or a rate or source that is missing, out of range or not wanted.
    """

    kind: str
    rate: float | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        kind = self.kind.lower()
        if kind not in _KINDS:
            raise unknown_name("noise level", self.kind, _KINDS)
        source = self.source or None
        if kind == "human" and source is not None:
            name = source.lower()
            source = _HUMAN_ALIASES.get(name, name)
            if source not in _HUMAN_NAMES:
                raise unknown_name("human label set", name, (*_HUMAN_NAMES, *_HUMAN_ALIASES))
        needs_rate, needs_source = kind in _RATE_KINDS, kind in _SOURCES
        if (needs_rate and self.rate is None) or (needs_source and source is None):
            what = _SOURCES.get(kind, "a rate")
            raise InputError(f"noise level {kind!r} needs {what}; write for example {_EXAMPLES[kind]!r}")
        if (self.rate is not None and not needs_rate) or (source is not None and not needs_source):
            given = self.rate if source is None else source
            way_out = _EXAMPLES.get(kind, kind)
            raise InputError(f"noise level {kind!r} cannot take {given!r}; write for example {way_out!r}")
        rate = None if self.rate is None else checked_rate(self.rate, f"the rate of noise level {kind!r}")
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "rate", rate)
        object.__setattr__(self, "source", source)

    @property
    def is_drawn(self) -> bool:
        """Whether the noise is drawn at random, so that it can be drawn anew."""
        return self.kind not in ("clean", "human", "given", *_ANNOTATOR_KINDS)

    @property
    def is_known(self) -> bool:
        """Whether a search may use its true rate: it puts that noise on the labels itself."""
        return self.kind not in ("human", "given", *_ANNOTATOR_KINDS)

    @property
    def is_of_annotators(self) -> bool:
        """Whether its labels are made of those of several annotators."""
        return self.kind in _ANNOTATOR_KINDS

    def __str__(self) -> str:
        if self.rate is not None:
            return f"{self.kind}:{repr(self.rate).removesuffix('.0')}"
        return self.kind if self.source is None else f"{self.kind}:{self.source}"


def parse_noise_level(text: str) -> NoiseLevel:
    """Return the noise level that ``text`` names, for example ``human:worst``; raise InputError if it names none."""
    head, colon, tail = (part.strip() for part in text.partition(":"))
    kind = head.lower()
    way_out = f"write for example {_EXAMPLES.get(kind, kind)!r}"
    if kind in _KINDS and colon and not tail:
        raise InputError(f"noise level {text.strip()!r} has nothing after the colon; {way_out}")
    if kind not in _RATE_KINDS or not tail:
        return NoiseLevel(head, source=tail or None)
    try:
        rate = float(tail.replace("_", "?"))  # Python reads 0_4 as 4
    except ValueError:
        rule = f"the rate of noise level {kind!r} must be a number from 0 to 1"
        raise InputError(f"{rule}, got {tail!r}; {way_out}") from None
    return NoiseLevel(kind, rate=rate)


def parse_noise_levels(text: str) -> tuple[NoiseLevel, ...]:
    """Return the noise levels of a comma-separated list, in its order; file names cannot hold commas.

    An item that is empty, invalid or there twice (as ``symmetric:0.4`` and ``symmetric:0.40``) is an InputError.
    """
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise InputError(
            f"a list of noise levels must hold a level between all commas, got {text!r}; "
            "write for example 'symmetric:0.2,symmetric:0.4'"
        )
    levels = tuple(parse_noise_level(item) for item in items)
    for position, level in enumerate(levels):
        if level in levels[:position]:
            raise InputError(f"noise level '{level}' is in the list twice, got {text!r}; leave one of them out")
    return levels


def checked_rate(rate: float, what: str) -> float:
    """Return a rate in [0, 1] as a float, or raise an error that begins with ``what``."""
    if not (math.isfinite(rate) and 0.0 <= rate <= 1.0):
        raise InputError(f"{what} must be from 0 to 1, got {rate:g}; 0.4 stands for 40 %")
    return abs(float(rate))  # no -0.0
