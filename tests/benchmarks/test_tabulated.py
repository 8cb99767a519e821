"""The tabulated benchmark in small: a grid is trained, read, and searches are replayed on it."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "tabulated"
RATES, WARMUPS, LRS = (0.4, 0.0, -1.0), (0, 1), (1e-3, 1e-2)


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(FOLDER))
    sys.path.insert(0, str(FOLDER.parent))
    try:
        import asha_clock
        import clocks
        import compare
        import replay
        import table
        import train_grid

        found = (asha_clock, clocks, compare, replay, table, train_grid)
        yield {module.__name__: module for module in found}
    finally:
        sys.path.remove(str(FOLDER.parent))
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def trained(modules, tmp_path_factory):
    """Two levels of a tiny grid, trained."""
    train_grid, folder = modules["train_grid"], tmp_path_factory.mktemp("tables")
    patch = pytest.MonkeyPatch()
    grid = train_grid.Grid(
        levels=("symmetric:0.0", "symmetric:0.2"), rates=RATES, warmups=WARMUPS, lrs=LRS, seeds=(0, 1), num_val=400,
        num_test=400, train_size=300,
    )  # fmt: skip
    patch.setitem(train_grid.GRIDS, "twonorm", grid)
    for piece in train_grid.pieces("twonorm"):
        train_grid.train_piece(piece, folder, epochs=9)
    parts = [pq.read_table(train_grid.piece_path(p, folder)) for p in train_grid.pieces("twonorm")]
    pq.write_table(pa.concat_tables(parts), folder / "twonorm.parquet")
    yield modules["table"].Table("twonorm", folder)
    patch.undo()


def test_every_point_was_trained_with_every_seed(trained):
    assert (trained.rates, trained.warmups, trained.lrs) == (sorted(RATES), list(WARMUPS), list(LRS))
    for level in trained.levels:
        assert level.seeds == [0, 1]
        assert all(len(curves) == trained.size == 12 for curves in level.curves.values())


def test_a_point_is_the_training_that_the_package_runs(trained):
    import dataclasses

    from nls_tune.datasets import load_dataset
    from nls_tune.spaces.reading import load_space
    from nls_tune.training.training import Training

    dataset = load_dataset("twonorm", "symmetric:0.2", noise_seed=1, split_seed=1, train_size=300)
    dataset = dataclasses.replace(
        dataset,
        val_indices=dataset.val_indices[:400],
        test_inputs=dataset.test_inputs[:400],
        test_labels=dataset.test_labels[:400],
    )
    space = load_space("twonorm", preset="cpu", epochs=9)
    training = Training(dataset, space.settings({"smooth_rate": -1.0, "warmup_epochs": 1, "lr": 1e-3}, 1))
    while not training.finished:
        training.run_epoch()
    curve = trained.levels[1].curves[1][0, 1, 0]
    assert curve.val.tolist() == pytest.approx(training.curve(), abs=0.006)
    test = [m.test_accuracy for m in training.history]
    assert ((curve.test["a"] + curve.test["b"]) / 2).tolist() == pytest.approx(test, abs=0.006)


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.01, 0.4), (0.0, 0.0), (-0.01, -1.0), (-7.0, -1.0)], ids=["small", "zero", "below", "far"]
)
def test_a_configuration_finds_its_point_within_its_arm(trained, rate, expected):
    point = trained.nearest({"smooth_rate": rate, "warmup_epochs": 7, "lr": 2e-3})
    assert trained.config(point) == {"smooth_rate": expected, "warmup_epochs": 1, "lr": 1e-3}


def test_what_a_point_is_worth_is_the_mean_over_seeds_at_its_best_epoch(trained):
    from nls_tune.metrics import best_epoch

    level, point = trained.levels[1], (0, 1, 1)
    values = []
    for curves in level.curves.values():
        best = best_epoch(curves[point].val.tolist(), curves[point].first_counting)
        values.append(curves[point].test["b"][best.epoch - 1])
    assert level.truth("b")[point] == pytest.approx(np.mean(values))


@pytest.mark.parametrize("name", ["nls_tune", "random search", "OptunaSearch + ASHA by level", "the same, informed"])
def test_a_replay_runs_all_its_trials_and_repeats_itself(modules, trained, name, monkeypatch):
    monkeypatch.setattr(modules["replay"], "TRIALS", 8)
    method = modules["compare"].METHODS[name]
    ended = method(trained, 3)
    assert {t.level for t in ended} == {"symmetric:0.0", "symmetric:0.2"}
    assert [t.order for t in ended] == list(range(len(ended)))
    trained_epochs = [t.epochs_trained for t in ended]
    assert trained_epochs == sorted(trained_epochs)
    assert method(trained, 3) == ended


def test_the_full_grid_trains_every_epoch_of_every_point(modules, trained):
    ended = modules["compare"].METHODS["full grid"](trained, 0)
    assert len(ended) == 24
    lengths = [len(c.val) + c.diverged for level in trained.levels for c in level.curves[0].values()]
    assert ended[-1].epochs_trained == sum(lengths)


def test_shared_warm_ups_save_epochs_and_change_no_result(modules, trained):
    replay = modules["replay"]
    runs = [replay.replay(replay.GridSearch(trained, 0), trained, warm_store=store, slots=1) for store in (False, True)]
    assert [(t.point, t.value) for t in runs[0]] == [(t.point, t.value) for t in runs[1]]
    # One epoch of each trial with a warm-up, but for the first of each level.
    assert runs[0][-1].epochs_trained - runs[1][-1].epochs_trained == 2 * (6 - 1)


def test_every_ablation_replays(modules, trained):
    for name, variant in modules["replay"].variants():
        ended = modules["replay"].replay_variant(trained, 0, variant)
        assert ended, name


def test_every_clock_judges_at_its_epochs(modules, trained):
    clocks, replay = modules["clocks"].CLOCKS, modules["replay"]
    judged = {name: (c.epoch(6, 10, True, 40), c.epoch(6, 10, False, 40)) for name, c in clocks.items()}
    assert list(judged.values()) == [(16, 16), (6, 16), (6, 6), (6, 6), (6, 12), (16, 16), (15, 15)]
    for name, clock in clocks.items():
        method = replay.OurSearch(trained, 0, replay.Variant(clock=name, grace=0.2), 8)
        rungs = {point: method.stops(point) for point in trained.levels[0].curves[0]}
        assert any(rungs.values()), name
        assert all(
            stop == clock.epoch(rung, trained.warmups[p[1]], trained.rates[p[0]] == 0, 9)
            for p, stops in rungs.items()
            for stop, rung in zip(stops, method.rungs, strict=True)
        )
        assert len(replay.replay(method, trained)) == 16, name


def test_of_a_set_the_better_half_goes_on_at_a_rung(modules):
    study = modules["asha_clock"]
    epochs, values = np.array([[2, 2, 3, 9], [4, 4, 5, 5]]), np.array([[0.5, 0.7, 0.6, 0.9], [0.5, 0.7, 0.6, 0.8]])
    name, final = "GLS epochs", np.array([0.5, 0.7, 0.6, 0.8])
    found = study.Population("negative", np.array([0, 0, 1, 8]), final, final, {name: epochs}, {name: values})
    end = study.halve(found, name, np.arange(4), 0.5, 9)
    assert end.tolist() == [2, 4, 3, 9]  # of three at the first rung one goes on; then the last, which it did not see
    assert study.cost(end, found.warmups) == 2 + 4 + 2 + 1 + 8


def test_regret_falls_to_that_of_the_leader(modules, trained):
    compare = modules["compare"]
    path = compare.regret_path(trained, compare.METHODS["full grid"](trained, 0), "b")
    regrets = []
    for level in trained.levels:
        done = {p: c.objective(9)[1] for p, c in level.curves[0].items() if not c.diverged}
        regrets.append(max(level.truth("b").values()) - level.truth("b")[max(done, key=done.get)])
    found = compare.summary(path)
    assert found["regret_at_end"] == pytest.approx(np.mean(regrets))
    assert found["regret_at_100"] == pytest.approx(np.mean(regrets))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([(10, 0.1), (20, 0.004), (30, 0.02), (40, 0.001)], 40),
        ([(10, 0.001)], 10),
        ([(10, 0.1)], math.inf),
    ],
)
def test_close_means_close_to_the_end(modules, path, expected):
    assert modules["compare"].summary(path)["epochs_until_close"] == expected


def test_the_cost_of_noisy_validation_is_measured(modules, trained, monkeypatch):
    compare = modules["compare"]
    monkeypatch.setitem(compare._TABLES, "twonorm", trained)
    found = compare.selection_regret(("twonorm", "symmetric:0.2", True, 5))
    assert found["num_val"] == 100
    assert -0.2 < found["raw"] < 0.5
    assert found["raw_error"] >= 0
    assert "confirm_1" not in found  # two seeds are too few for one of each kind


class Made:
    """A level whose points have made-up accuracies: by seed on validation, the same for all seeds on test."""

    seeds = (0, 1, 2, 3, 4)
    table = SimpleNamespace(rates=(-1.0, 0.0))

    def __init__(self, val, test) -> None:
        self.val, self.tested = val, test

    def validation(self, point, seeds, *, quarter):
        return np.mean([self.val[point][seed] for seed in seeds])

    def test(self, point, half, seeds):
        assert set(seeds) == {3, 4}  # neither the search's nor those of the confirmation
        return self.tested[point]


def test_a_confirmation_chooses_by_fresh_seeds_among_the_best_of_each_arm(modules):
    compare, ended = modules["compare"], modules["replay"].Ended
    lucky, good, best, ce = (0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 0)
    fresh = {lucky: 0.5, good: 0.7, best: 0.9, ce: 0.6}
    level = Made({p: [None, v, v, None, None] for p, v in fresh.items()}, {lucky: 0.5, good: 0.7, best: 0.9, ce: 0.6})
    trials = [
        ended(1.0, "a", point, 0, value, completed, order)
        for order, (point, value, completed) in enumerate(
            [(good, 0.8, True), (lucky, 0.9, True), (best, 0.99, False), (ce, 0.7, True), (lucky, 0.9, True)]
        )
    ]
    found = compare.confirmation_gains(level, trials, "b")
    assert found == pytest.approx({"confirm_1": 0.1, "confirm_2": 0.2})
    assert compare.confirmation_gains(level, trials[2:3], "b") == {}


def test_rows_that_were_not_replayed_again_are_kept_with_their_commit(modules):
    kept = {
        "git_commit": "old",
        "twonorm": {"methods": {"nls_tune": {"seeds": 1}, "no ASHA": {"seeds": 2}, "gone": {}}},
    }
    found = modules["compare"].merged("twonorm", {"nls_tune": {"seeds": 3}}, "new", kept)
    assert found == {"nls_tune": {"seeds": 3, "git_commit": "new"}, "no ASHA": {"seeds": 2, "git_commit": "old"}}
