"""Rows of a sweep over four rates with two seeds, whose means are known."""

import pandas as pd
from trial_rows import trial_row, trials_frame

CE, GAIN = {1: 0.80, 2: 0.84}, {-4.0: 0.02, -1.0: -0.01, 0.0: 0.0, 0.5: 0.01}
VALIDATION = {-4.0: 0.61, -1.0: 0.65, 0.0: 0.63, 0.5: 0.60}


def swept_row(rate, seed, stage="sweep", level="symmetric:0.4", lr=0.01, **given):
    values = {"best_val_accuracy": VALIDATION[rate] + 0.001 * seed, "test_accuracy_at_best": CE[seed] + GAIN[rate]}
    return trial_row({"smooth_rate": rate, "seed": seed, "lr": lr}, noise_level=level, stage=stage, minute=seed,
                     num_test=1000, noise_cancelling_rate=-4.0, **{**values, **given})  # fmt: skip


def swept_rows(**given):
    return [swept_row(rate, seed, **given) for rate in GAIN for seed in CE]


def swept_trials(**given) -> pd.DataFrame:
    return trials_frame(swept_rows(**given))
