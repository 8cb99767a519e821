"""The pixels of a user's own images: those of all sources, decoded to one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from nls_tune.datasets.decoding import Failure, Size, decode, survey, target_size
from nls_tune.datasets.image_cache import DecodedImages, decoded_images
from nls_tune.datasets.progress import Progress
from nls_tune.datasets.samples import Picture, Samples, counted, listed
from nls_tune.errors import InputError


def decode_parts(
    parts: Mapping[str, Samples], side: int | None, *, skip: bool, progress: Progress
) -> tuple[dict[str, Samples], DecodedImages, list[str]]:
    """Decode the pictures of some samples; return these with their places, the images, and notes on size and place.

    The size follows from the pictures of ``main``, where no ``side`` is asked for.

    Raises:
        InputError: For pictures that cannot be read, unless they are to be left out.
    """
    surveys = {name: survey(samples.pictures, progress=progress) for name, samples in parts.items()}
    size, note = target_size(surveys["main"], side)
    digests = [found.digest for found in surveys.values()]
    images = decoded_images([one.pictures for one in parts.values()], digests, size, progress=progress)
    decoded, begin = {}, 0
    for name, samples in parts.items():
        end = begin + len(samples)
        failures = [one for one in images.failures if begin <= one.row < end]
        notes = refuse(failures, len(samples), samples.where, skip=skip)
        places = np.setdiff1d(np.arange(begin, end), [one.row for one in failures])
        kept = replace(samples, pictures=()).take(places - begin)
        decoded[name] = replace(kept, places=places, notes=(*samples.notes, *notes))
        begin = end
    found = [note] if note else []
    if (file := images.mapped_file()) is not None:
        found.append(f"the decoded images, {images.pixels.nbytes / 1e9:.1f} GB, stay in {file.parent}")
    return decoded, images, found


def decode_in_memory(pictures: Sequence[Picture], size: Size, where: str) -> np.ndarray:
    """Decode pictures without labels to RGB, (N, 3, H, W); InputError: some cannot be read."""
    windows: list[np.ndarray] = []
    failures = decode([pictures], size, windows.append).failures
    refuse(failures, len(pictures), where, skip=None)
    return np.concatenate(windows)


def refuse(failures: Sequence[Failure], total: int, where: str, *, skip: bool | None) -> list[str]:
    """Refuse pictures that cannot be read, or return a note on them; no command could leave them out with None."""
    if not failures:
        return []
    shown = listed(f"{failure.name}: {failure.reason}" for failure in failures)
    if not skip or len(failures) == total:
        way = "replace or remove them" if skip is None else "replace them, or leave them out with --skip-unreadable"
        raise InputError(f"{len(failures):,} of {counted(total, 'image')} in {where} cannot be read ({shown}); {way}")
    return [f"{counted(len(failures), 'image')} of {where} cannot be read and are left out ({shown})"]
