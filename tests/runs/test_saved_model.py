"""model.json: what is written comes back, and what is missing, damaged or impossible is said in one line."""

import json

import pytest
from saved_models import facts_of

from nls_tune.errors import InputError
from nls_tune.runs.saved_model import FACTS, WEIGHTS, model_folder, read_saved_model, read_weights


def write(folder, **changes):
    raw = json.loads(facts_of(b"weights").text())
    raw.pop("seal")
    (folder / FACTS).write_text(json.dumps({**raw, **changes}), encoding="utf-8")


def test_what_is_written_comes_back(tmp_path):
    saved = facts_of(class_names=("a", "<b>", "ö"), test_accuracy=0.123456789012345, num_test=10, noise_rate=0.2)
    (tmp_path / FACTS).write_text(saved.text(), encoding="utf-8")
    assert read_saved_model(tmp_path) == saved
    assert read_saved_model(tmp_path / FACTS) == saved
    assert model_folder(tmp_path / WEIGHTS) == tmp_path
    assert [saved.name_of(k) for k in range(3)] == ["a", "<b>", "ö"]
    assert facts_of().name_of(2) == "2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mpl"}, "did you mean 'mlp'"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"class_names": ["a"]}, "class_names must be 3, got 1"),
        ({"mean": [0.0]}, "mean and std must have 4 values"),
        ({"std": [1, 1, 0, 1]}, "std must be positive"),
        ({"precision": "float8"}, "precision"),
        ({"format_version": 2}, "format version 2, this nls_tune reads up to 1; update"),
        ({"model": "cnn9"}, "cnn9"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        read_saved_model(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": "mlp"}'])
def test_a_torn_file_is_said(tmp_path, content):
    (tmp_path / FACTS).write_text(content)
    with pytest.raises(InputError, match=r"model\.json cannot be read"):
        read_saved_model(tmp_path)


def test_a_change_by_hand_is_found(tmp_path):
    (tmp_path / FACTS).write_text(facts_of().text().replace('"epochs": 3', '"epochs": 4'))
    with pytest.raises(InputError, match="its checksum differs"):
        read_saved_model(tmp_path)


@pytest.mark.parametrize("name", [".", "absent", "file", "file/below"])
def test_a_place_without_a_model_is_said(tmp_path, name):
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="is not a saved model: it has no model"):
        read_saved_model(tmp_path / name)


def test_weights_must_be_those_of_the_facts(tmp_path):
    write(tmp_path)
    saved = read_saved_model(tmp_path)
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        read_weights(tmp_path, saved)
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    assert read_weights(tmp_path, saved) == b"weights"
    (tmp_path / WEIGHTS).write_bytes(b"weightz")
    with pytest.raises(InputError, match="its SHA-256 differs"):
        read_weights(tmp_path, saved)
