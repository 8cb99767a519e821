"""A search of a user's own data as a command: from a CSV file to a recommendation, and on from there."""

import json
import shutil

import pytest
from commands import run_search
from own_files import features

from nls_tune import read_trials
from nls_tune.runs import load_run

FLAGS = ("--label", "answer", "--clean-labels", "truth", "--test", "test.csv", "--num-trials", "3", "--epochs", "3",
         "--confirm-seeds", "0", "--out", "run")  # fmt: skip


@pytest.mark.timeout(240)
def test_a_table_with_gaps_and_texts_gets_a_recommendation(tmp_path):
    features(400).to_csv(tmp_path / "my.csv", index=False)
    features(100, seed=1).to_csv(tmp_path / "test.csv", index=False)
    done = run_search("--table", "my.csv", *FLAGS, folder=tmp_path, seconds=120)
    assert (done.code, done.err) == (0, "")
    first = "Search of my: 320 training, 80 validation (noisy labels), 100 test samples, 2 classes (no, yes)"
    assert done.out.splitlines()[0] == first
    trials, content = read_trials(tmp_path / "run"), load_run(tmp_path / "run").content
    assert set(trials["dataset"]) == {"my"}
    assert set(trials["noise_level"]) == {"given"}
    assert (trials["test_accuracy_at_best"] > 0.5).all()
    assert content.data.class_names == ["no", "yes"]
    kept = json.loads((tmp_path / "run" / "preprocessing.json").read_text())
    assert [step["column"] for step in kept["columns"]] == ["size", "weight", "colour"]

    # The same content in another container is the same data; the finished run says its answer again.
    features(400).sample(frac=1, random_state=1).to_parquet(tmp_path / "moved.parquet")
    again = run_search("--table", "moved.parquet", *FLAGS, folder=tmp_path, seconds=120)
    assert again.code == 0
    assert again.out.splitlines()[-6:] == done.out.splitlines()[-6:]
    shutil.move(tmp_path / "test.csv", tmp_path / "my.csv")
    other = run_search(
        "--table", "my.csv", *FLAGS[:4], "--test", "moved.parquet", *FLAGS[6:], folder=tmp_path, seconds=120
    )
    assert other.has_failed_in_one_line()
    assert "the data, their labels or the split are others" in other.err
