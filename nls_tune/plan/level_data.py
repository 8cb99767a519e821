"""The data that the trials of a run train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nls_tune.datasets import NoisyDataset
from nls_tune.metrics import PLAIN
from nls_tune.noise import parse_noise_level
from nls_tune.plan.plan import SearchPlan, make_dataset
from nls_tune.plan.transition import transition_of
from nls_tune.runs.schemas import ON_ALL_LABELS, Stage, trial_id
from nls_tune.runs.trial_spec import DataName, TrialSpec
from nls_tune.spaces.settings import TrainingSettings


class LevelData:
    """The datasets of a run: those of its search's plan, and others that are made once, when first asked for."""

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan
        self._loaded = {}
        for level in plan.levels:
            matrix = transition_of(plan.space, level)
            self._loaded[DataName(level.level)] = (
                level.dataset if matrix is None else replace(level.dataset, transition=matrix)
            )

    def load(self, name: DataName) -> NoisyDataset:
        """Return a dataset; the noise of one that is not there yet is drawn now."""
        planned = self._loaded[DataName(name.noise_level)]
        if name.noise_seed == planned.noise_seed:
            name = name._replace(noise_seed=None)
        if name not in self._loaded:
            made = self._make(name, planned.noise_seed)
            # Another draw of the noise has the search's matrix: estimates are made once per level.
            matrix = planned.transition
            self._loaded[name] = made if matrix is None else replace(made, transition=matrix)
        return self._loaded[name]

    def _make(self, name: DataName, noise_seed: int) -> NoisyDataset:
        if name.all_labels:
            return self.load(name._replace(all_labels=False)).on_all_labels()
        plan, level = self._plan, parse_noise_level(name.noise_level)
        seed = noise_seed if name.noise_seed is None else name.noise_seed
        return make_dataset(plan.source, level, plan.settings, plan.space, seed)

    def trial(
        self,
        level: str,
        settings: TrainingSettings,
        stage: Stage = "search",
        *,
        noise_seed: int | None = None,
        judged_at: Sequence[int] = (),
        stop_at: int | None = None,
        readout: str = PLAIN,
    ) -> TrialSpec:
        """Return a trial on one of the datasets, which is loaded: the trial's name depends on its fingerprint.

        ``noise_seed`` is None for the search's own draw of the noise. A scheduler looks at the trial at the epochs
        ``judged_at``, and one on all labels ends after ``stop_at`` and is tested with the weights ``readout`` as well.
        """
        dataset = self.load(DataName(level, noise_seed, stage == ON_ALL_LABELS))
        name = trial_id(dataset.fingerprint, level, dataset.noise_seed, settings, stage)
        return TrialSpec(name, level, stage, settings, noise_seed, tuple(judged_at), stop_at, readout)
