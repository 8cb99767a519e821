"""What is known about each dataset before a byte of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nls_tune.errors import InputError, unknown_name
from nls_tune.noise import NoiseLevel, read_matrix

#: Own images from this side, and from so many samples, on are trained by a network made for speed.
_FAST_SIDE, _FAST_SAMPLES = 16, 6_000
_HUMAN_10 = ("aggre", "random1", "random2", "random3", "worst")
_GENERATED_LEVELS = tuple(f"symmetric:{rate}" for rate in ("0", "0.1", "0.2", "0.3", "0.4"))
_SYMMETRIC = tuple(f"symmetric:{rate}" for rate in ("0.2", "0.4", "0.6"))
# The usual map of asymmetric noise on CIFAR-10 (Patrini et al., CVPR 2017): truck to automobile, bird to
# airplane, deer to horse, cat and dog to each other.
_CIFAR10_MAP = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
# The pairs of classes that Wei et al. (ICML 2022) swap, both ways: truck and automobile, bird and airplane, deer and
# horse, cat and dog, frog and ship.
_CIFAR10_SWAPS = {a: b for pair in ((9, 1), (2, 0), (4, 7), (3, 5), (6, 8)) for a, b in (pair, pair[::-1])}
# The superclass of each class of CIFAR-100, in the authors' numbers.
_SUPERCLASSES = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7,
    6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10,
    16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16,
    12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
)  # fmt: skip


def _next_in_superclass() -> dict[int, int]:
    """The usual map of asymmetric noise on CIFAR-100: each class to the next one of the five of its superclass."""
    found: dict[int, int] = {}
    for superclass in range(20):
        members = [label for label, of in enumerate(_SUPERCLASSES) if of == superclass]
        found |= dict(zip(members, members[1:] + members[:1], strict=True))
    return found


_CIFAR100_MAP = _next_in_superclass()


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset, as far as it is known without loading it.

    ``input_shape`` is that of one sample: (C, H, W) of uint8 images, (D,) of float32 features. ``human_names`` name the
    human label sets, without ``human:``. ``class_map`` says where asymmetric noise sends a class, clean to noisy, and
    ``swap_map`` the noise ``swap``; None if the dataset defines no map. ``num_labelled`` counts training and validation
    samples together. Data of a user's ``own`` are known once they are loaded; all but those have clean labels, and only
    those may have the labels of several ``annotators``, by name.
    """

    name: str
    num_classes: int
    input_shape: tuple[int, ...]
    default_levels: tuple[str, ...] = _SYMMETRIC
    human_names: tuple[str, ...] = ()
    class_map: Mapping[int, int] | None = field(default=None, hash=False)
    swap_map: Mapping[int, int] | None = field(default=None, hash=False)
    default_val_fraction: float = 0.1
    num_labelled: int = 50_000
    num_test: int = 10_000
    own: bool = False
    knows_clean: bool = True
    annotators: tuple[str, ...] = ()

    @property
    def default_space(self) -> str:
        """The name of the search space that is taken unless another is asked for."""
        if not self.own:
            return self.name
        if len(self.input_shape) == 1:
            return "own_features"
        fast = min(self.input_shape[1:]) >= _FAST_SIDE and self.num_labelled >= _FAST_SAMPLES
        return "own_images" if fast else "own_small_images"


def _generated(name: str, num_classes: int, num_features: int) -> DatasetInfo:
    # Half of the samples validate: they cost nothing, and choices among noisy labels need many.
    return DatasetInfo(
        name, num_classes, (num_features,), _GENERATED_LEVELS, default_val_fraction=0.5, num_labelled=8_000
    )


_IMAGE = (3, 32, 32)
DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        # One level at which a rate is worth nothing, and one at which it is (benchmarks/default_run.py).
        DatasetInfo("digits", 10, (1, 8, 8), ("symmetric:0.2", "pairflip:0.3"), num_labelled=1_438, num_test=359),
        _generated("twonorm", 2, 20),
        _generated("waveform", 3, 21),
        DatasetInfo("cifar10", 10, _IMAGE, class_map=_CIFAR10_MAP, swap_map=_CIFAR10_SWAPS),
        DatasetInfo("cifar100", 100, _IMAGE, class_map=_CIFAR100_MAP),
        DatasetInfo(
            "cifar10n",
            10,
            _IMAGE,
            tuple(f"human:{n}" for n in _HUMAN_10),
            _HUMAN_10,
            class_map=_CIFAR10_MAP,
            swap_map=_CIFAR10_SWAPS,
        ),
        DatasetInfo("cifar100n", 100, _IMAGE, ("human:noisy",), ("noisy",), class_map=_CIFAR100_MAP),
    )
}
"""Every built-in dataset by name, the default first."""


def dataset_info(name: str) -> DatasetInfo:
    """Return what is known about a dataset of `DATASETS`; of another name, an InputError names the nearest one."""
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    return DATASETS[name]


def check_level(info: DatasetInfo, level: NoiseLevel) -> None:
    """Raise an InputError that says why a dataset cannot have a noise level, if so, before anything is loaded."""
    if level.kind == "human":
        _check_human(info, level)
    elif level.is_of_annotators and not info.annotators:
        raise InputError(
            f"noise level '{level}' is for items that several annotators have labelled; "
            + (
                "name their columns with --annotators A,B,C"
                if info.own
                else "give such data with --table, --annotators"
            )
        )
    elif level.kind == "annotator" and level.source not in info.annotators:
        raise unknown_name(f"annotator of {info.name}", str(level.source), info.annotators)
    elif level.kind == "given" and info.annotators:
        raise InputError(
            "noise level 'given' is for one column of labels, and several annotators gave some; use majority"
        )
    elif (level.kind == "asymmetric" and info.class_map is None) or (level.kind == "swap" and info.swap_map is None):
        raise InputError(
            f"{level.kind} noise needs a map of the classes and {info.name} defines none, so it cannot have "
            f"{str(level)!r}; use pairflip:{level.rate:g}, or matrix:FILE with {info.num_classes} classes"
        )
    elif info.own and level.kind == "clean" and not info.knows_clean:
        raise InputError(
            f"noise level 'clean' needs clean labels, and those of {info.name} are not known; "
            "use 'given', or name them with --clean-labels COLUMN"
        )
    elif level.kind == "given" and not info.own:
        raise InputError(
            f"noise level 'given' takes the labels of your own file as they are, and {info.name} is built in; "
            f"use 'clean' or one of {', '.join(info.default_levels)}"
        )
    elif level.kind == "matrix":
        read_matrix(str(level.source), info.num_classes)


def _check_human(info: DatasetInfo, level: NoiseLevel) -> None:
    if level.source in info.human_names:
        return
    if info.human_names:
        levels = [f"human:{name}" for name in info.human_names]
        raise unknown_name(f"noise level of {info.name}", str(level), levels)
    having = [name for name, other in DATASETS.items() if level.source in other.human_names]
    raise InputError(
        f"{info.name} has no human labels, so it cannot have {str(level)!r}; use --dataset "
        f"{' or '.join(having) or 'cifar10n'}, or a generated noise level such as {info.default_levels[0]}"
    )
