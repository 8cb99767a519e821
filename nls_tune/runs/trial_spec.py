"""What a trial is, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from nls_tune.metrics import PLAIN
from nls_tune.runs.schemas import ON_ALL_LABELS, Stage
from nls_tune.spaces.settings import TrainingSettings


class DataName(NamedTuple):
    """The name of a dataset of a run.

    A ``noise_seed`` means another draw of the noise than the search's own; with ``all_labels`` the validation samples
    are trained on as well.
    """

    noise_level: str
    noise_seed: int | None = None
    all_labels: bool = False


@dataclass(frozen=True)
class TrialSpec:
    """What a trial is; ``trial_id`` is that of ``schemas.trial_id``, ``noise_seed`` as in ``DataName``.

    A scheduler looks at it at the epochs ``judged_at``. A trial on all labels ends after epoch ``stop_at``, None for
    the last one, and is tested there with the weights ``readout`` as well.
    """

    trial_id: str
    noise_level: str
    stage: Stage
    settings: TrainingSettings
    noise_seed: int | None = None
    judged_at: tuple[int, ...] = ()
    stop_at: int | None = None
    readout: str = PLAIN

    @property
    def data(self) -> DataName:
        """The name of its dataset."""
        return DataName(self.noise_level, self.noise_seed, self.stage == ON_ALL_LABELS)

    @property
    def last_epoch(self) -> int:
        """The epoch after which it ends."""
        return self.settings.epochs if self.stop_at is None else self.stop_at

    def to_config(self) -> dict[str, Any]:
        """Return the trial as plain values: Tune's configuration, and the content of ``trial.json``."""
        return {**vars(self), "settings": self.settings.model_dump(mode="json"), "judged_at": list(self.judged_at)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrialSpec:
        """Return the trial that ``to_config`` described; early versions wrote its first four values only.

        Others than these are KeyErrors, TypeErrors or ValueErrors.
        """
        texts = [name for name in ("trial_id", "noise_level", "stage") if not isinstance(config[name], str)]
        texts += ["readout"] if not isinstance(config.get("readout", PLAIN), str) else []
        wholes = [name for name in ("noise_seed", "stop_at") if not isinstance(config.get(name), int | None)]
        if texts or wholes:
            raise TypeError(f"{[*texts, *wholes][0]} is of another type")
        if config["stage"] not in get_args(Stage):
            raise ValueError(f"stage must be one of {', '.join(get_args(Stage))}, got {config['stage']!r}")
        return cls(
            trial_id=config["trial_id"],
            noise_level=config["noise_level"],
            stage=config["stage"],
            settings=TrainingSettings(**config["settings"]),
            noise_seed=config.get("noise_seed"),
            judged_at=tuple(config.get("judged_at", ())),
            stop_at=config.get("stop_at"),
            readout=config.get("readout", PLAIN),
        )
