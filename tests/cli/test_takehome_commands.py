"""``nls-tune train``, ``predict`` and ``suspects``: from a run to files, and bad input in one line."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from answers import LEVEL, write_answerable_run
from commands import is_one_line_error, run, started, wait_until
from fake_runs import read_raw
from PIL import Image
from saved_models import write_model

from nls_tune import load_dataset
from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.runs.saved_model import CARD, FACTS, WEIGHTS

OLD = Path(__file__).parents[1] / "data" / "run_0.1" / "finished"


@pytest.fixture
def command(capsys):
    def call(*arguments):
        code = run_app(app, [str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return write_answerable_run(tmp_path_factory.mktemp("digits") / "run", "digits")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["twonorm", "digits"])
def test_a_new_process_predicts_with_the_accuracy_that_was_stored(tmp_path, command, dataset):
    path = write_answerable_run(tmp_path / "run", dataset)
    code, out, err = command("train", path)
    assert (code, err) == (0, "")
    folder = path / "models" / "symmetric-0.2"
    assert sorted(p.name for p in folder.iterdir()) == [CARD, FACTS, WEIGHTS]
    saved = json.loads((folder / FACTS).read_text())
    assert f"Wrote: {folder}, {100 * saved['test_accuracy']:.2f} % on clean test labels\n" in out
    assert (saved["run_id"], saved["trained_on"]) == (read_raw(path)["run_id"], "all")
    assert saved["verdict"] in out or "use cross-entropy" in saved["verdict"]
    data = load_dataset(dataset, LEVEL, train_size=300)
    assert saved["num_samples"] == data.num_train + data.num_val
    np.save(tmp_path / "test.npy", data.test_inputs)
    done = run(
        sys.executable, "-m", "nls_tune.cli.main", "predict", str(folder), "test.npy", "--out", "found.parquet",
        folder=tmp_path,
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert done.out == f"Wrote found.parquet: {len(data.test_labels):,} predictions of mlp of {dataset}, {LEVEL}\n"
    found = pd.read_parquet(tmp_path / "found.parquet")
    assert (found["predicted"] == data.test_labels).mean() == saved["test_accuracy"]
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    code, out, _ = command("train", path)
    assert (code, out.splitlines()[0].startswith("Trained already: ")) == (0, True)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.slow
def test_a_training_that_is_killed_leaves_no_model_and_the_same_command_makes_it(tmp_path, command):
    path = write_answerable_run(tmp_path / "run")
    folder = path / "models" / "symmetric-0.2"
    with started(sys.executable, "-m", "nls_tune.cli.main", "train", str(path), folder=tmp_path) as program:
        wait_until(lambda: (folder / "checkpoint").is_dir() or not program.running, "it trains")
        program.process.kill()
        program.process.wait()
    complete = (folder / FACTS).exists()  # on a fast machine it may have been done
    assert complete or command("predict", folder, "x.npy")[0] == 2
    assert command("train", path)[0] == 0
    assert command("train", path, "--out", tmp_path / "whole")[0] == 0
    assert sorted(p.name for p in folder.iterdir()) == [CARD, FACTS, WEIGHTS]
    assert (folder / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_suspects_are_written_as_tables_and_as_a_page(digits, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("suspects", digits, "--out", "found", "--folds", 2)
    assert (code, err) == (0, "")
    assert f"digits, {LEVEL}: " in out
    assert "judged by 2 of mlp with the recommended configuration" in out
    assert sorted(p.name for p in (tmp_path / "found").iterdir()) == [
        f"suspects.{e}" for e in ("csv", "html", "parquet")
    ]
    table, same = pd.read_csv("found/suspects.csv"), pd.read_parquet("found/suspects.parquet")
    pd.testing.assert_frame_equal(table, same)
    data = load_dataset("digits", LEVEL, train_size=300)
    assert set(table["index"]) <= {*data.train_indices, *data.val_indices}
    assert (table["label"] == data.noisy_labels[table["index"]]).all()
    assert (table["label"] != table["suggested_label"]).all()
    assert table["score"].is_monotonic_increasing
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    wrong = data.noisy_labels != data.clean_labels
    assert wrong[table["index"]].mean() > wrong[data.train_indices].mean()


def test_images_of_a_folder_are_predicted_by_name(tmp_path, command):
    write_model(
        tmp_path / "model",
        model="small_cnn",
        input_shape=(1, 8, 8),
        mean=(0.3,),
        std=(0.4,),
        class_names=("a", "b", "c"),
    )
    (tmp_path / "images").mkdir()
    for name in ("2.png", "1.png"):
        Image.new("RGB", (20, 10), (int(name[0]), 0, 0)).save(tmp_path / "images" / name)
    code, out, err = command("predict", tmp_path / "model", tmp_path / "images", "--out", tmp_path / "p.csv")
    assert (code, err) == (0, "")
    assert "2 predictions of small_cnn" in out
    found = pd.read_csv(tmp_path / "p.csv")
    assert found["file"].tolist() == ["1.png", "2.png"]
    assert found["predicted_name"].tolist() == [("a", "b", "c")[k] for k in found["predicted"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "absent"), "is not a run"),
        (("train", OLD), "--level must name one of"),
        (("train", OLD, "--level", "symmetric:0.4"), "still rising at its last epoch"),
        (("train", OLD, "--level", "symetric:0.4"), "did you mean 'symmetric:0.4'?"),
        (("suspects", OLD, "--level", "symmetric:0.4", "--folds", "1"), "--folds must be from 2 to 20, got 1"),
        (("suspects", "{digits}", "--data-dir", "absent"), "--data-dir must be a folder that exists"),
        (("train", "{digits}", "--out", "{file}"), "--out must be a folder"),
        (("train", "{digits}", "--out", "{folder}"), "--out must be empty or hold a model"),
        (("train", "{digits}", "--out", "{model}"), "holds a model of other data or settings"),
        (("predict", "{folder}", "x.npy"), "is not a saved model"),
        (("predict", "{model}", "absent.npy"), "does not exist"),
        (("predict", "{model}", "{folder}"), "takes 4 features, not images"),
        (("predict", "{model}", "{folder}/wide.npy"), "must have the shape (N, 4)"),
        (("predict", "{model}", "{folder}/wide.npy", "--out", "x.txt"), "must end in .csv or .parquet"),
        (("predict", "{torn}", "{folder}/wide.npy"), "SHA-256 differs"),
    ],
)
def test_bad_input_is_one_line(tmp_path, command, digits, arguments, message):
    places = {"digits": digits, **{name: tmp_path / name for name in ("file", "folder", "model", "torn")}}
    places["file"].write_text("text")
    places["folder"].mkdir()
    np.save(places["folder"] / "wide.npy", np.ones((2, 5)))
    write_model(places["model"])
    write_model(places["torn"])
    (places["torn"] / WEIGHTS).write_bytes(b"torn")
    if arguments[1] == "{torn}":
        np.save(places["folder"] / "wide.npy", np.ones((2, 4)))
    code, out, err = command(*(str(a).format(**places) for a in arguments))
    assert (code, out) == (2, "")
    assert is_one_line_error(err)
    assert message in err
