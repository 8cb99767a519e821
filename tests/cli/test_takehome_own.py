"""``nls-tune train``, ``predict`` and ``suspects`` of a user's own data: tables, images and arrays."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from answers import write_answerable_run, write_own_run
from commands import is_one_line_error
from own_files import features, labels_of, pixels, write_folder
from saved_models import write_model

from nls_tune import InputError, load_predictor
from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.datasets import Data, load_own
from nls_tune.datasets.inputs import load_inputs
from nls_tune.session.answer import load_answer


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = run_app(app, [str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.mark.slow
def test_a_table_is_taken_home_by_its_own_columns_rows_and_classes(tmp_path, command):
    rows, test = features(400), features(100, seed=1)
    rows.to_csv("my.csv", index=False)
    test.to_csv("test.csv", index=False)
    path = write_own_run(tmp_path / "run", table="my.csv", label="answer", clean_labels="truth", test="test.csv")
    code, out, err = command("train", path)
    assert (code, err) == (0, "")
    saved = json.loads((path / "models" / "given" / "model.json").read_text())
    assert (saved["class_names"], saved["test_labels"]) == (["no", "yes"], "clean")
    assert saved["preprocessing"] == json.loads((path / "preprocessing.json").read_text())
    columns = ["weight", "colour", "size"]  # in another order, without labels
    test[columns].to_csv("new.csv", index=False)
    code, out, err = command("predict", path / "models" / "given", "new.csv")
    assert (code, err, out) == (0, "", "Wrote predictions.csv: 100 predictions of mlp of my, given\n")
    found = pd.read_csv("predictions.csv")
    assert found["index"].tolist() == list(range(100))
    assert (found["predicted_name"] == test["truth"]).mean() == saved["test_accuracy"] > 0.7
    test[["colour"]].to_csv("new.csv", index=False)
    code, _, err = command("predict", path / "models" / "given", "new.csv")
    assert code == 2
    assert is_one_line_error(err)
    assert "new.csv lacks 2 columns of the features (size, weight); it holds colour" in err

    rows.sample(frac=1, random_state=0).to_csv("moved.csv", index=False)
    (tmp_path / "my.csv").unlink()
    assert command("suspects", path)[0] == 2
    code, out, err = command("suspects", path, "--table", "moved.csv", "--folds", 2)
    assert (code, err) == (0, "")
    suspects, moved = pd.read_csv(path / "suspects" / "given" / "suspects.csv"), pd.read_csv("moved.csv")
    there = moved.loc[suspects["row"]]
    assert there["answer"].tolist() == suspects["label_name"].tolist()
    assert (there["answer"] != there["truth"]).mean() > 2 * (moved["answer"] != moved["truth"]).mean()


def test_origins_are_files_or_rows_of_each_source_in_the_order_of_the_labels(tmp_path):
    frame = features(60).assign(size=np.arange(60.0))
    source = load_own(Data.from_dataframe(frame, label="answer", drop="truth", val=features(30, seed=1), test=0.1))
    own, train = source.own, len(source.labels) - 30
    assert not own.test_clean  # a share has the labels that were given
    assert own.origins["source"].tolist() == ["train"] * train + ["val"] * 30
    names = np.array(own.class_names)[source.labels]
    assert names[:train].tolist() == frame.loc[own.origins["row"][:train], "answer"].tolist()
    assert sorted(own.origins["row"][train:]) == list(range(30))
    folder = write_folder(tmp_path / "photos", pixels(20), labels_of(20))
    (folder / "cat" / "torn.png").write_bytes(b"torn")
    source = load_own(Data.from_folder(folder, skip_unreadable=True))
    assert list(source.own.origins) == ["file"]
    for file, label, image in zip(source.own.origins["file"], source.labels, source.inputs, strict=True):
        assert file.split("/")[0] == source.own.class_names[label]
        assert np.array_equal(image.transpose(1, 2, 0), pixels(20)[int(file[-7:-4])])


def test_clean_validation_labels_are_no_suspects_and_files_are_named(tmp_path, command):
    write_folder(tmp_path / "photos", pixels(60), labels_of(60))
    write_folder(tmp_path / "checked", pixels(40, seed=1), labels_of(40))
    path = write_own_run(tmp_path / "run", images="photos", val="checked", val_clean=True)
    code, out, err = command("suspects", path, "--folds", 2)
    assert (code, err) == (0, "")
    assert " of 60 labels" in out
    found = pd.read_csv(path / "suspects" / "given" / "suspects.csv")
    assert len(found)
    assert [(tmp_path / "photos" / file).exists() for file in found["file"]] == [True] * len(found)
    assert found["file"].str.split("/").str[0].tolist() == found["label_name"].tolist()
    assert found["file"][0] in (path / "suspects" / "given" / "suspects.html").read_text()


def test_inputs_go_through_the_preprocessing_of_the_training(tmp_path):
    frame = features(60)
    source = load_own(Data.from_dataframe(frame, label="answer", drop="truth"))
    kept, shape = json.loads(json.dumps(source.own.preprocessing)), source.info.input_shape
    for file, write in (("a.csv", frame.to_csv), ("a.parquet", frame.to_parquet)):
        write(tmp_path / file, index=False)
        found = load_inputs(tmp_path / file, shape, kept)
        assert np.array_equal(found.values[source.own.origins["row"]], source.inputs)
    np.save(tmp_path / "a.npy", frame[["size", "weight"]].to_numpy())
    with pytest.raises(InputError, match=r"takes texts in 1 column \(colour\)"):
        load_inputs(tmp_path / "a.npy", shape, kept)
    bad = {"x.csv": ("size", "many", "mixes 59 numbers with 1 text"), "y.csv": ("size", "inf", "infinite")}
    for name, (column, value, message) in bad.items():
        frame.astype(object).assign(**{column: [value, *frame[column][1:]]}).to_csv(tmp_path / name, index=False)
        with pytest.raises(InputError, match=message) as error:
            load_inputs(tmp_path / name, shape, kept)
        assert "--drop" not in str(error.value)
    (tmp_path / "head.csv").write_text("size,weight,colour\n")
    with pytest.raises(InputError, match="holds no rows"):
        load_inputs(tmp_path / "head.csv", shape, kept)
    with pytest.raises(InputError, match="not trained on a table"):
        load_inputs(tmp_path / "a.csv", (4,))


def test_images_and_arrays_go_through_the_preprocessing_of_the_training(tmp_path):
    large = pixels(20, size=80)
    folder = write_folder(tmp_path / "photos", large, labels_of(20))
    source = load_own(Data.from_folder(folder))
    kept, shape = source.own.preprocessing, source.info.input_shape
    assert shape == (3, 32, 32)
    found = load_inputs(folder, shape, kept)
    places = [found.files.index(file) for file in source.own.origins["file"]]
    assert np.array_equal(found.values[places], source.inputs)
    np.save(tmp_path / "large.npy", large)
    rows = [int(file[-7:-4]) for file in source.own.origins["file"]]
    assert np.array_equal(load_inputs(tmp_path / "large.npy", shape, kept).values[rows], source.inputs)
    grey = load_own(Data.from_arrays(large[..., 0], labels_of(20)))
    np.save(tmp_path / "grey.npy", large[..., 0])
    found = load_inputs(tmp_path / "grey.npy", (1, 32, 32), grey.own.preprocessing)
    assert np.array_equal(found.values[grey.own.origins["row"]], grey.inputs)


def test_a_predictor_takes_arrays_as_they_were_given_to_the_search(tmp_path):
    inputs = np.random.default_rng(0).normal(50, 9, size=(60, 3))
    inputs[5, 1] = np.nan
    source = load_own(Data.from_arrays(inputs, np.arange(60) % 3))
    shape = source.info.input_shape
    constants = {"mean": (0.0,) * shape[0], "std": (1.0,) * shape[0]}
    write_model(tmp_path, input_shape=shape, preprocessing=source.own.preprocessing, **constants)
    predictor = load_predictor(tmp_path)
    found = predictor.probabilities(inputs)[source.own.origins["row"]]
    assert np.allclose(found, predictor.probabilities(source.inputs, prepared=True), atol=1e-6)
    with pytest.raises(InputError, match=r"numbers of shape \(N, 3\), the columns of the model"):
        predictor.predict(source.inputs[:, :2])


def test_where_data_lie_is_asked_for_in_one_line(tmp_path, command, monkeypatch):
    features(60).to_csv("my.csv", index=False)
    features(60, seed=1).to_csv("other.csv", index=False)
    path = write_own_run(tmp_path / "run", table="my.csv", label="answer", drop=["truth"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "my.csv").rename(tmp_path / "elsewhere" / "moved.csv")
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "elsewhere")
        assert load_answer(path, given={"table": Path("moved.csv")}).class_names == ("no", "yes")
    code, _, err = command("train", path, "--table", "other.csv")
    assert code == 2
    assert "--images, --table or --arrays if they lie elsewhere" in err
    code, _, err = command("train", write_answerable_run(tmp_path / "built-in"), "--table", "other.csv")
    assert code == 2
    assert "--table is for data of your own" in err
    content = json.loads((path / "run.json").read_text())
    content["sessions"][0]["data_in_memory"] = True
    (path / "run.json").write_text(json.dumps(content))
    code, _, err = command("suspects", path)
    assert code == 2
    assert "were given in memory" in err
