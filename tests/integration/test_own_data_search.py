"""A search of a user's own data as a command: from a CSV file to a recommendation, and on from there."""

import json
import shutil

import pytest
from commands import run_search
from own_files import annotated, features

from nls_tune import read_trials
from nls_tune.analysis.analysis import analyze
from nls_tune.report.html.page import render_page
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


@pytest.mark.timeout(240)
def test_levels_of_annotators_are_compared_and_shown(tmp_path):
    annotated(300).drop(columns="truth").to_csv(tmp_path / "crowd.csv", index=False)
    annotated(100, seed=1)[["f0", "f1", "f2", "f3", "truth"]].to_csv(tmp_path / "test.csv", index=False)
    flags = ("--table", "crowd.csv", "--annotators", "a,b,c", "--clean-labels", "truth", "--test", "test.csv",
             "--noise", "majority,soft,annotator:a", "--num-trials", "2", "--epochs", "2", "--confirm-seeds", "0",
             "--out", "run")  # fmt: skip
    done = run_search(*flags, folder=tmp_path, seconds=120)
    assert (done.code, done.err) == (0, "")
    assert "annotator labels estimated error with a with b with c" in " ".join(done.out.split())
    trials, run = read_trials(tmp_path / "run"), load_run(tmp_path / "run")
    assert sorted(set(trials["noise_level"])) == ["annotator:a", "majority", "soft"]
    assert set(trials["status"]) == {"completed"}
    assert trials["noise_rate"].isna().all()
    assert trials["estimated_noise_rate"].between(0.03, 0.4).all()
    assert [one.name for one in run.content.data.annotators] == ["a", "b", "c"]
    page = render_page(analyze([run]))
    assert "The annotators" in page
    assert "annotator:a" in page

    # Another label is other data.
    frame = annotated(300).drop(columns="truth")
    frame.loc[0, "a"] = "dog" if frame.loc[0, "a"] != "dog" else "owl"
    frame.to_csv(tmp_path / "crowd.csv", index=False)
    other = run_search(*flags, folder=tmp_path, seconds=120)
    assert other.has_failed_in_one_line()
    assert "the data, their labels or the split are others" in other.err
