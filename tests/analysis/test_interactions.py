from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_runs import write_fake_run
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.interactions import RATE_CELLS, VALUE_CELLS, interactions
from nls_tune.runs import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(write_fake_run(tmp_path_factory.mktemp("cells") / "run", trials=60, epochs=40))


def cells(values: pd.Series, edges) -> pd.Series:
    """Which cell each value is in, by pandas; the last one takes its upper edge, too."""
    return pd.cut(values, [*edges[:-1], np.nextafter(edges[-1], np.inf)], right=False, labels=False)


def test_cells_hold_the_best_and_the_number_of_their_completed_trials(run):
    found = interactions(run.trials, run.levels)
    assert [(i.noise_level, i.setting) for i in found] == [(a, b) for a in run.levels for b in ("lr", "warmup_epochs")]
    for each in found:
        rows = run.trials[run.trials["noise_level"] == each.noise_level]
        done = rows[rows["status"] == "completed"]
        by = [cells(done[each.setting], each.value_edges), cells(done["smooth_rate"], each.rate_edges)]
        groups = done.groupby(by)
        best, counts = groups["best_val_accuracy"].max(), groups.size()
        assert counts.sum() == len(done)
        for line in range(len(each.value_edges) - 1):
            for column in range(len(each.rate_edges) - 1):
                assert each.best[line][column] == best.get((line, column))
                assert each.counts[line][column] == counts.get((line, column), 0)
        ended = rows[rows["status"].isin(["completed", "stopped", "diverged"])]
        columns = ["trial_id", "smooth_rate", each.setting, "best_val_accuracy", "status"]
        assert [tuple(vars(point).values()) for point in each.points] == list(ended[columns].itertuples(index=False))


def test_edges_are_evenly_spaced_where_the_search_is(run):
    for each in interactions(run.trials, run.levels):
        rows = run.trials[run.trials["noise_level"] == each.noise_level]
        assert (each.rate_edges[0], each.rate_edges[-1]) == (rows["smooth_rate"].min(), rows["smooth_rate"].max())
        assert len(each.rate_edges) == RATE_CELLS + 1
        assert np.ptp(np.diff(np.log(1 - np.array(each.rate_edges)))) < 1e-9
        if each.setting == "lr":
            assert (each.value_edges[0], each.value_edges[-1]) == (rows["lr"].min(), rows["lr"].max())
            assert len(each.value_edges) == VALUE_CELLS + 1
            assert np.ptp(np.diff(np.log(each.value_edges))) < 1e-9
        else:
            low, high = rows["warmup_epochs"].min(), rows["warmup_epochs"].max()
            heights = np.diff(each.value_edges)
            assert each.value_edges[0] == low - 0.5
            assert high < each.value_edges[-1] < high + 0.5 + heights[0]
            assert len(set(heights)) == 1
            assert heights[0].is_integer()
            assert len(heights) <= VALUE_CELLS


rows_of_trials = st.lists(
    st.tuples(
        st.sampled_from([-8.0, -1.0, 0.0, 0.3, 0.995, 1.0]),
        st.sampled_from([1e-4, 1e-3, 0.1]),
        st.integers(0, 9),
        st.sampled_from(["completed", "stopped", "diverged", "failed"]),
    ),
    max_size=12,
)


@given(rows_of_trials)
@settings(max_examples=settings.default.max_examples // 2)
def test_no_trial_is_lost_and_what_does_not_differ_is_left_out(values):
    frame = trials_frame(
        [trial_row({"smooth_rate": r, "lr": lr, "warmup_epochs": w}, status=status, minute=minute)
         for minute, (r, lr, w, status) in enumerate(values)]
    )  # fmt: skip
    ended = frame[frame["status"] != "failed"]
    completed = int((frame["status"] == "completed").sum())
    expected = [
        name
        for name in ("lr", "warmup_epochs")
        if completed and ended["smooth_rate"].nunique() > 1 and ended[name].nunique() > 1
    ]
    found = interactions(frame)
    assert [each.setting for each in found] == expected
    for each in found:
        assert len(each.points) == len(ended)
        assert np.sum(each.counts) == completed
        assert (np.diff(each.rate_edges) >= 0).all()
        assert (np.diff(each.value_edges) > 0).all()
        assert [[b is None for b in line] for line in each.best] == [[c == 0 for c in line] for line in each.counts]


def test_nothing_completed_or_nothing_of_the_search_says_nothing(tmp_path):
    assert interactions(trials_frame([])) == ()
    rows = [trial_row({"smooth_rate": rate, "lr": lr}, stage="confirm") for rate, lr in ((0.0, 0.1), (-1.0, 0.2))]
    assert interactions(trials_frame(rows)) == ()
    bad = load_run(write_fake_run(tmp_path / "run", all_diverged=True))
    assert interactions(bad.trials, bad.levels) == ()
    # A trial without an epoch that counts is a point without accuracy.
    lost = trial_row({"smooth_rate": -1.0, "lr": 0.2}, best_val_accuracy=None, best_epoch=None, status="diverged")
    rows = [trial_row({"smooth_rate": 0.0, "lr": 0.1}), lost]
    (found,) = interactions(trials_frame(rows))
    assert [point.val_accuracy for point in found.points] == [rows[0]["best_val_accuracy"], None]
    assert found.counts == ((0, 1), (0, 0))
