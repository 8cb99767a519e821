import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from nls_tune.analysis.confirmation import confirmations
from nls_tune.analysis.method_results import _readout
from nls_tune.report.console.tables import print_levels
from nls_tune.report.run_tables import confirmation_table
from nls_tune.report.words import all_labels_sentence


def rows(level, arm, rate, val, test, *, last=None, noise_seeds=None, **changes):
    """One confirmation trial per value, seeds 1, 2, ..."""
    return [
        {
            "stage": "confirm",
            "noise_level": level,
            "arm": arm,
            "smooth_rate": rate,
            "warmup_epochs": 3,
            "lr": 0.01,
            "config_model": "mlp",
            "config_milestones": np.array([], dtype=np.int64),
            "seed": seed,
            "noise_seed": 0 if noise_seeds is None else noise_seeds[seed - 1],
            "status": "completed",
            "best_val_accuracy": v,
            "test_accuracy_at_best": t,
            "last_test_accuracy": t if last is None else last,
            "epochs": 10,
            "num_classes": 10,
            "num_test": 1000,
            **changes,
        }
        for seed, (v, t) in enumerate(zip(val, test, strict=True), start=1)
    ]


CE = [0.90, 0.91, 0.92, 0.90]
NEGATIVE = [0.93, 0.93, 0.95, 0.92]


def frame(*groups):
    return pd.DataFrame([row for group in groups for row in group])


def test_numbers_are_those_of_scipy():
    (found,) = confirmations(
        frame(rows("a", "ce", 0.0, [0.5] * 4, CE), rows("a", "negative", -2.0, [0.6] * 4, NEGATIVE))
    )
    ce, negative = found.configurations
    assert (ce.arm, negative.arm) == ("ce", "negative")
    assert negative.test_at_best.mean == pytest.approx(np.mean(NEGATIVE))
    differences = np.subtract(NEGATIVE, CE)
    low, high = stats.t.interval(0.95, 3, loc=differences.mean(), scale=stats.sem(differences))
    comparison = found.comparisons[1]
    assert (comparison.difference.low, comparison.difference.high) == (pytest.approx(low), pytest.approx(high))
    assert comparison.sign_flip_p == pytest.approx(2 / 2**4)
    assert comparison.smallest_p == pytest.approx(2 / 2**4)
    assert found.comparisons[0] is None
    assert comparison.proven


def test_the_strongest_ce_is_the_one_with_the_better_validation_not_test():
    (found,) = confirmations(
        frame(
            rows("a", "ce", 0.0, [0.50] * 2, [0.99, 0.98], lr=0.1),
            rows("a", "ce", 0.0, [0.55] * 2, [0.90, 0.91], lr=0.2),
            rows("a", "positive", 0.1, [0.52] * 2, [0.97, 0.97]),
        )
    )
    assert found.configurations[found.strongest_ce].config["lr"] == 0.2
    assert found.best == found.strongest_ce


@pytest.mark.parametrize("draws", [(1, 2, 3), (1, 2, 7)])
def test_pairs_have_the_same_seed_and_the_same_draw_of_the_noise(draws):
    ce = rows("a", "ce", 0.0, [0.5] * 3, [0.90, 0.80, 0.70], noise_seeds=(1, 2, 3))
    other = rows("a", "negative", -1.0, [0.6] * 3, [0.91, 0.82, 0.99], noise_seeds=draws)
    (found,) = confirmations(frame(ce, other[:2] if draws[2] == 3 else other))  # or a seed is missing
    difference = found.comparisons[1].difference
    assert (difference.num_seeds, difference.mean) == (2, pytest.approx(0.015))


def test_diverged_seeds_count_with_their_best_epoch_and_failed_ones_do_not():
    table = frame(
        rows("a", "ce", 0.0, [0.5] * 2, [0.9, 0.9]),
        rows("a", "negative", -4.0, [0.6] * 2, [0.95, 0.96], status="diverged", last=0.5),
        rows("a", "positive", 0.1, [0.6], [0.9], status="failed"),
        rows("a", "positive", 0.2, [None], [None], status="diverged"),
        rows("a", "positive", 0.3, [0.99], [0.99], stage="search"),
    )
    (found,) = confirmations(table)
    ce, lost, negative = found.configurations
    assert [c.arm for c in found.configurations] == ["ce", "positive", "negative"]
    assert (lost.config["smooth_rate"], lost.num_diverged, lost.test_at_best.mean) == (0.2, 1, 0.1)  # guessing
    assert negative.num_diverged == 2
    assert negative.test_at_last.mean == 0.5
    assert ce.num_diverged == 0


@pytest.mark.parametrize(("averages", "expected"), [([0.97, 0.98], [0.97, 0.98]), ([0.97, None], [0.91, 0.92])])
def test_on_all_labels_averaged_weights_count_where_every_seed_was_tested_with_them(averages, expected):
    """An early version tested the weights as they are alone: the two are not mixed."""
    on_all = rows("a", "negative", -2.0, [None] * 2, [None] * 2, stage="confirm_all")
    tested = [
        {**row, "last_test_accuracy": last, "average_test_accuracy_at_best": average}
        for row, last, average in zip(on_all, [0.91, 0.92], averages, strict=True)
    ]
    (found,) = confirmations(frame(rows("a", "negative", -2.0, [0.6] * 2, [0.95, 0.96]), tested))
    assert found.configurations[0].on_all_labels.test.mean == pytest.approx(np.mean(expected))


def test_a_table_shows_the_metric_that_its_runs_select_by():
    values = {f"{name}_macro_f1": [0.5, 0.6] for name in ("best_val", "last_test")} | {
        "test_macro_f1_at_best": [0.5, 0.6]
    }
    table = frame(rows("a", "negative", -2.0, [0.9] * 2, [0.9] * 2, plain_test_accuracy_at_best=0.9)).assign(
        **values, plain_test_macro_f1_at_best=[0.4, 0.5]
    )
    (found,) = confirmations(table, metric="macro_f1")
    plain = _readout(table, found.configurations[0], "plain", "macro_f1")
    assert (plain.mean, found.configurations[0].test_at_best.mean) == (pytest.approx(0.45), pytest.approx(0.55))


def test_p_values_are_corrected_over_the_levels():
    table = frame(
        *(rows(level, "ce", 0.0, [0.5] * 4, CE) for level in "abc"),
        *(rows(level, "negative", -2.0, [0.6] * 4, NEGATIVE) for level in "abc"),
    )
    found = confirmations(table, ["c", "a", "b"])
    assert [c.noise_level for c in found] == ["c", "a", "b"]
    assert [c.comparisons[1].holm_p for c in found] == pytest.approx([3 * 0.125] * 3)


def test_one_seed_proves_nothing_and_without_a_test_set_there_is_nothing_to_compare():
    (found,) = confirmations(frame(rows("a", "ce", 0.0, [0.5], [0.9]), rows("a", "negative", -1.0, [0.6], [0.95])))
    assert not found.comparisons[1].proven
    assert np.isinf(found.comparisons[1].detectable)
    (found,) = confirmations(
        frame(rows("a", "ce", 0.0, [0.5], [None]), rows("a", "negative", -1.0, [0.6], [None], last=np.nan))
    )
    assert found.configurations[1].test_at_best is None
    assert found.comparisons[1] is None
    assert confirmations(frame(rows("a", "ce", 0.0, [0.5], [0.9], stage="search"))) == ()


def all_rows(level, arm, rate, test, *, epochs=7, **changes):
    """As the recorder writes them: the last test accuracy is all that is known."""
    found = rows(level, arm, rate, [None] * len(test), test, stage="confirm_all", epochs=epochs, **changes)
    return [{**row, "test_accuracy_at_best": None} for row in found]


@pytest.fixture
def on_all() -> pd.DataFrame:
    """On the split CE with lr 0.2 is the strongest; on all labels it would be the other one."""
    draws = {"noise_seeds": (21, 22, 23, 24)}
    return frame(
        rows("a", "ce", 0.0, [0.50] * 4, CE, lr=0.1, **draws),
        rows("a", "ce", 0.0, [0.55] * 4, CE, lr=0.2, **draws),
        rows("a", "negative", -2.0, [0.6] * 4, NEGATIVE, lr=0.2, **draws),
        rows("a", "positive", 0.1, [0.4] * 4, CE, **draws),
        all_rows("a", "ce", 0.0, [0.99] * 4, lr=0.1, **draws),
        all_rows("a", "ce", 0.0, [0.91, 0.93, 0.92, 0.90], lr=0.2, epochs=9, **draws)[:3],
        all_rows("a", "negative", -2.0, [0.97], lr=0.2, epochs=8, **draws),
        all_rows("a", "negative", -2.0, [0.0, 0.95, 0.96, 0.94], lr=0.2, **draws)[1:],
        all_rows("a", "positive", 0.1, [0.9], status="failed"),
        all_rows("b", "negative", -2.0, [0.1] * 4, lr=0.2, **draws),  # a level without rows on the split
    )


def test_all_labels_are_compared_seed_by_seed_with_the_ce_that_is_strongest_on_the_split(on_all):
    (found,) = confirmations(on_all)
    (_, strongest, positive, negative) = found.configurations
    assert (found.strongest_ce, found.best) == (1, 3)
    assert strongest.on_all_labels.difference is None
    assert positive.on_all_labels is None  # its trial failed
    table = on_all[(on_all.stage == "confirm_all") & (on_all.noise_level == "a") & (on_all.lr == 0.2)]
    wide = table.pivot_table(index=["seed", "noise_seed"], columns="smooth_rate", values="last_test_accuracy")
    assert negative.on_all_labels.test.mean == pytest.approx(wide[-2.0].mean())
    assert negative.on_all_labels.test.standard_deviation == pytest.approx(wide[-2.0].std())
    differences = (wide[-2.0] - wide[0.0]).dropna()
    assert negative.on_all_labels.difference.num_seeds == len(differences) == 3
    low, high = stats.t.interval(0.95, 2, loc=differences.mean(), scale=stats.sem(differences))
    assert negative.on_all_labels.difference.low == pytest.approx(low)
    assert negative.on_all_labels.difference.high == pytest.approx(high)
    assert (strongest.on_all_labels.epochs, negative.on_all_labels.epochs) == ((9,), (7, 8))
    # They change nothing of the split.
    (alone,) = confirmations(on_all[on_all.stage != "confirm_all"])
    assert found.comparisons == alone.comparisons
    assert [replace(c, on_all_labels=None) for c in found.configurations] == list(alone.configurations)
    assert all_labels_sentence(alone) is None


def test_a_seed_that_diverged_on_all_labels_counts_with_its_end():
    table = frame(rows("a", "ce", 0.0, [0.5] * 2, CE[:2]), all_rows("a", "ce", 0.0, [0.9, 0.8]))
    table.loc[table.index[-1], ["status", "epochs"]] = ["diverged", 2]
    (found,) = confirmations(table)
    everything = found.configurations[0].on_all_labels
    assert (everything.epochs, everything.num_diverged, everything.test.num_seeds) == ((7,), 1, 2)
    assert all_labels_sentence(found).endswith("smooth_rate 0 for 7 epochs, 1 diverged.")


def test_the_column_of_all_labels_is_printed_where_there_is_one(on_all):
    def screen(table):
        console = Console(record=True, width=80, file=io.StringIO())  # narrower than the table
        print_levels(confirmation_table([replace(found, used=3) for found in confirmations(table)]), console)
        return console.export_text()

    text = screen(on_all)
    assert "on all labels" in text.splitlines()[0]
    shown = [line.split()[-3:] for line in text.splitlines() if line.split()[-3:-1] == ["95.50", "±"]]
    assert shown == [["95.50", "±", "1.29"]]
    assert "…" not in text
    assert sum(line.split()[:2] == ["negative", "*"] for line in text.splitlines()) == 1
    assert "on all labels" not in screen(on_all[on_all.stage == "confirm"])
    (found,) = confirmations(on_all)
    assert all_labels_sentence(found).startswith(
        "a: on all labels, validation samples included, each configuration was trained for the median of its best "
        "epochs: smooth_rate 0 for 7 epochs, 0 for 9 epochs, −2 for 7 or 8 epochs; −2 minus the strongest CE: +4.00 ["
    )
