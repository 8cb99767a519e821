"""The benchmark programs start and measure what they say where the answer is known."""

import importlib
import itertools
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.spaces.reading import load_space
from nls_tune.training.training import Training

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
NO_PROGRAMS = {"reference_loop", "readme_figure"}
PROGRAMS = [
    path for path in [*sorted(FOLDER.glob("*.py")), FOLDER / "gpu" / "measure.py"] if path.stem not in NO_PROGRAMS
]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def start(monkeypatch, path: Path, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # which other tests would keep
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_program_starts(path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, path, "--help")
    assert ended.value.code == 0
    assert "--out" in (said := capsys.readouterr().out) or "--small" in said


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("loss", ("--rounds", "2")), ("profile_epoch", ("--device", "cpu", "--models", "mlp", "--epochs", "1"))],
)
def test_a_program_writes_its_evidence(name, arguments, monkeypatch, tmp_path):
    start(monkeypatch, FOLDER / f"{name}.py", *arguments, "--out", str(tmp_path / "evidence.json"))
    found = json.loads((tmp_path / "evidence.json").read_text())
    assert found["what"]
    rows = found.get("rows") or found["measurements"]
    for row in rows if name == "profile_epoch" else ():
        assert sum(row["share"].values()) == pytest.approx(1)


def test_what_a_gpu_is_measured_by_runs_on_a_cpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, FOLDER / "gpu" / "measure.py", "--small", "--only", "matmul", "training", "loss")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (ended.value.code, lines) == (0, json.loads((tmp_path / "measure.json").read_text()))
    assert [line["section"] for line in lines] == ["machine", "matmul", "training-small_cnn-32", "loss"]
    flops = lines[2]["images_per_second"] * lines[2]["flops_per_image"]
    assert lines[2]["share_of_matmul"] == pytest.approx(flops / lines[1]["flops_per_second"])


def trials(*spans: tuple[float, float], share: float = 1.0) -> pd.DataFrame:
    begin, end = (pd.to_datetime(part, unit="s", utc=True) for part in zip(*spans, strict=True))
    seconds = [share * (last - first) for first, last in spans]
    return pd.DataFrame({"started_at": begin, "finished_at": end, "train_seconds": seconds})


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (trials((0, 10), (0, 10), (10, 20), (10, 20)), 1.0),
        (trials((0, 10), (10, 20), (20, 30)), 0.5),  # the second slot stands idle
        (trials((0, 10), (0, 10), (10, 20), (10, 20), share=0.9), 0.9),
        (trials((0, 10), (0, 30), (10, 12)), 1.0),  # what comes after the last start does not count
        (trials((0, 10), (0, 10), (20, 30)), 0.5),
    ],
)
def test_utilisation_is_training_over_slot_seconds(rows, expected):
    assert importlib.import_module("utilisation").utilisation(rows, 2) == pytest.approx(expected)


def test_overhead_is_what_lies_between_the_trainings_of_a_slot():
    overheads = importlib.import_module("overhead").overheads
    rows = trials((0.0, 10.0), (10.5, 20.0), (21.0, 22.0), share=0.9)
    assert overheads(rows, 1) == pytest.approx([10.5 - 9.0, 10.5 - 0.9 * 9.5])
    with pytest.raises(ValueError, match="must follow one another"):
        overheads(trials((0, 1), (0, 1), (0, 1), (0, 1)), 2)


@given(exponent=st.floats(-1, 3), factor=st.floats(1e-3, 1e3))
def test_the_fit_of_growth_finds_a_power_law(exponent, factor):
    sizes = [10, 100, 300, 1000]
    found = importlib.import_module("scale").exponents(sizes, [factor * size**exponent for size in sizes])
    assert found["exponent"] == pytest.approx(exponent, abs=1e-6)
    assert found["factor"] == pytest.approx(factor, rel=1e-5)


def test_watching_an_epoch_changes_none_of_its_numbers():
    benchmark = importlib.import_module("profile_epoch")
    watched, alone = (benchmark.make_training("small_cnn", 128, "cpu") for _ in range(2))
    for training in (watched, alone):
        training.run_epoch()  # the first epoch of a phase makes the optimiser
    parts = benchmark.parts_of_epoch(watched)
    alone.run_epoch()
    mine, theirs = watched.history[1], alone.history[1]
    assert (mine.train_loss, mine.val_loss, mine.val_accuracy) == (
        theirs.train_loss,
        theirs.val_loss,
        theirs.val_accuracy,
    )
    assert sum(parts.values()) >= mine.seconds
    assert all(parts[name] > 0 for name in parts)


def test_a_pair_of_the_race_of_qualities_starts_alike_and_sees_the_same_batches():
    from same_quality import SharedDrawsLoop
    from throughput import random_images, settings_of

    dataset = random_images(160, num_test=20)
    settings = settings_of("small_cnn", 64, "float32").model_copy(update={"epochs": 2, "warmup_epochs": 1})
    training = Training(dataset, settings)
    loop = SharedDrawsLoop(training, dataset)
    for name, value in loop.model.state_dict().items():
        assert torch.equal(value, training.model.state_dict()[name]), name
    for epoch in (1, 2):
        batches = list(training.batches(epoch))
        assert loop.train_epoch() == pytest.approx(training.run_epoch().train_loss, rel=1e-3)
        for (inputs, labels), (others, their_labels) in zip(batches, loop.train_loader, strict=True):
            assert torch.equal(labels, their_labels)
            torch.testing.assert_close(inputs, others, rtol=0, atol=1e-5, check_stride=False)


@pytest.mark.parametrize("losses", [0, 4])
def test_simulated_runs_are_decided_as_findings_decides_them(losses):
    claims = importlib.import_module("false_claims")
    said = [claims.disagreements(np.random.default_rng(seed), 2, 5, 2, 2, losses) for seed in range(3)]
    assert said == [0, 0, 0]


def test_simulated_gains_are_found_and_none_is_claimed_too_often():
    claims = importlib.import_module("false_claims")
    found = [
        claims.is_better(*claims.simulate(np.random.default_rng(0), 500, 2, 5, 0.003, "normal", gain, losses=4), 4)
        for gain in (0.0, 0.02)
    ]
    assert claims._share(found[0]) <= 0.08  # 5 %, and three standard errors of 500 runs
    assert found[1].all(axis=(1, 2)).mean() > 0.9


def test_diverging_configurations_are_drawn_from_the_whole_space_and_counted_per_space():
    divergence = importlib.import_module("divergence")
    space = load_space("digits")
    drawn = list(itertools.islice(divergence.configurations(space, "negative", 0), 60))
    assert all(-8 <= config["smooth_rate"] < 0 for config in drawn)
    assert 15 <= sum(config["lr"] < 1e-3 for config in drawn) <= 45  # the middle of its logarithms
    counts = {"space": "digits", "trainings": 34, "unclipped": 10, "diverged_unclipped": 4}
    rows = [{**counts, "diverged": d, "gains": g} for d, g in ((1, [0.5, -1.5]), (2, []))]
    assert divergence.readme_table({"rows": rows})[2:] == [
        "| digits | 3 of 68 | 8 of 20 | −0.50 [−13.21, +12.21] |",
    ]


def test_gains_of_averages_have_signs_and_intervals():
    averages = importlib.import_module("averages")
    found = averages.summary(
        [{"without": 0.8, "chosen": c, "readout": r} for c, r in ((0.78, "plain"), (0.8, "average:0.5"))]
    )
    row = {"dataset": "digits", "noise_level": "symmetric:0.4", "smooth_rate": -0.5, **found}
    (line,) = averages.readme_table({"rows": [row]})[2:]
    assert line == "| digits, `symmetric:0.4` | −0.5 | −1.00 [−13.71, +11.71] | 1 of 2 |"


def test_the_seeds_of_a_training_of_the_fast_recipe_have_a_row():
    recipe = importlib.import_module("fast_recipe")
    job = recipe.jobs()[0]
    one = {**job._asdict(), "plain": {"test_accuracy": 0.81234}, "average": None, "pflop": 0.351,
           "mirrored_test_accuracy": 0.82, "train_seconds": 330.0, "precision": "float32"}  # fmt: skip
    other = {**one, "seed": job.seed + 1, "plain": {"test_accuracy": 0.83234}, "mirrored_test_accuracy": None}
    (line,) = recipe.readme_table({"rows": {"a": one, "b": other}})[2:]
    assert line.endswith("| cross-entropy | 2 | 82.23 ± 1.41 | – | 82.00 | 0.35 | 6 in float32 |")
    on_all = {**one, "all_labels": True}
    assert len(recipe.readme_table({"rows": {"a": one, "b": other, "c": on_all}})) == 4
