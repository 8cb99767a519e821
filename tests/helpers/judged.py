"""What trainings in tests get right."""

from typing import Any


def correct_bits(judge: Any, epoch: int) -> tuple[bytes, bytes | None]:
    """Return which validation and test samples a training, or its averages, get right after an epoch, as bits."""
    val, test = judge.judged(epoch)
    return val.bits.tobytes(), None if test is None else test.bits.tobytes()
