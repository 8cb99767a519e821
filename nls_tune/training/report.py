"""What a trial reports to whoever follows it: Tune, the scheduler, the recorder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nls_tune.metrics import EpochMetrics, ReadoutScore
from nls_tune.runs.schemas import Status

#: The key of the objective in Tune's results.
METRIC = "best_value"


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """The state of a trial after an epoch. To Tune it is a flat dictionary with all of these keys.

    ``epoch`` is the last one, 0 before the first; ``gls_epochs``, those of the GLS phase, are the scheduler's clock.
    ``best_value`` is the objective, 0.0 while no epoch counts, ``best_epoch`` the epoch that a user would
    deploy, ``readout`` which weights, and ``val_correct_at_best`` says which validation samples are right there, one
    bit per sample (test samples likewise; None without a test set). ``val_counts_at_best`` are the counts by class
    there, as `ClassCounts.flat` gives them. ``plain`` is what the weights as they are have
    reached, ``average`` their best average; ``mirrored_test_accuracy`` is over images and mirror images, where that is
    asked for. ``diverged`` is about the last epoch; ``finished``: the trial has come to its end by itself.
    ``train_seconds`` are those of the epochs that it trained, without the ``epochs_reused`` from the store of warm-ups,
    and ``new_epochs`` those since the report before. ``out_of_memory`` is the error of a trial that ran out of memory.
    ``warnings`` are for the user, one sentence each; a report may repeat earlier ones. ``done``: this is the last
    report.
    """

    device: str
    node: str
    epoch: int = 0
    gls_epochs: int = 0
    epochs_reused: int = 0
    best_value: float = 0.0
    best_epoch: int | None = None
    readout: str | None = None
    plain: ReadoutScore | None = None
    average: ReadoutScore | None = None
    mirrored_test_accuracy: float | None = None
    val_correct_at_best: bytes | None = None
    test_correct_at_best: bytes | None = None
    val_counts_at_best: tuple[int, ...] | None = None
    test_counts_at_best: tuple[int, ...] | None = None
    diverged: bool = False
    finished: bool = False
    train_seconds: float = 0.0
    new_epochs: tuple[EpochMetrics, ...] = ()
    out_of_memory: str | None = None
    warnings: tuple[str, ...] = ()
    done: bool = False

    @property
    def objective(self) -> float | None:
        """The objective; None while no epoch counts."""
        return None if self.best_epoch is None else self.best_value

    @property
    def best(self) -> ReadoutScore | None:
        """The score of the readout that is used; None while no epoch counts."""
        return next((one for one in (self.plain, self.average) if one and one.readout == self.readout), None)

    @property
    def status(self) -> Status:
        """How the trial ended, if this report is its last."""
        if self.out_of_memory:
            return "out_of_memory"
        if self.diverged:
            return "diverged"
        return "completed" if self.finished else "stopped"

    def to_result(self) -> dict[str, Any]:
        """Return the report as Tune takes it."""
        values = asdict(self)
        for name in ("plain", "average"):
            values[name] = values[name] and tuple(values[name].values())  # Tune would flatten a dict
        return values

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> TrialReport:
        """Return the report that ``to_result`` gave to Tune, which adds keys of its own."""
        values = {field.name: result[field.name] for field in fields(cls)}
        values["new_epochs"] = tuple(EpochMetrics(**epoch) for epoch in values["new_epochs"])
        for name in ("plain", "average"):
            values[name] = values[name] and ReadoutScore(*values[name])
        return cls(**values)
