"""Inputs to predict: arrays in any usual layout, folders of images, and errors in one line."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from nls_tune.datasets.inputs import check_inputs, load_inputs
from nls_tune.errors import InputError

IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, bool])
def test_features_become_float32(dtype):
    found = check_inputs(np.ones((2, 3), dtype), (3,))
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 1, 1]] * 2


def test_images_may_have_their_channels_last_or_none():
    assert np.array_equal(check_inputs(IMAGES, (3, 4, 5)), IMAGES)
    assert np.array_equal(check_inputs(IMAGES.transpose(0, 2, 3, 1), (3, 4, 5)), IMAGES)
    grey = IMAGES[:, 0]
    assert np.array_equal(check_inputs(grey, (1, 4, 5)), grey[:, None])
    square = np.arange(54, dtype=np.uint8).reshape(2, 3, 3, 3)
    assert np.array_equal(check_inputs(square, (3, 3, 3)), square)  # both layouts fit: as the model has it


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        (np.ones((2, 4)), (3,), r"the shape \(N, 3\) of the model's inputs, N at least 1, got \(2, 4\)"),
        (np.ones((0, 3)), (3,), r"got \(0, 3\)"),
        (np.ones(3), (3,), r"got \(3,\)"),
        (np.float32(1), (3,), r"got \(\)"),
        (IMAGES, (3, 5, 5), r"\(N, 3, 5, 5\)"),
        (IMAGES / 255, (3, 4, 5), "images of uint8, from 0 to 255, got float64"),
        ([["a", "b", "c"]], (3,), "must be numbers"),
        ([[1, 2, 3], [1, np.nan, 3]], (3,), "must be finite, sample 1 is not"),
        ([[1e300, 0, 0]], (3,), "must be finite, sample 0 is not"),
    ],
)
def test_other_inputs_are_said(values, shape, message):
    with np.errstate(over="ignore"), pytest.raises(InputError, match=message):
        check_inputs(values, shape)


def test_files_of_arrays(tmp_path):
    features = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", features)
    np.savez(tmp_path / "one.npz", anything=features)
    np.savez_compressed(tmp_path / "several.npz", labels=np.arange(2), features=features)
    for name in ("a.npy", "one.npz", "several.npz"):
        found = load_inputs(tmp_path / name, (3,))
        assert np.array_equal(found.values, features)
        assert found.files is None


def test_files_that_cannot_be_used(tmp_path):
    np.savez(tmp_path / "unnamed.npz", a=np.ones(2), b=np.ones(2))
    np.savez(tmp_path / "empty.npz")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "unnamed.npz").read_bytes()[:50])
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "void.npy").write_bytes(b"")
    (tmp_path / "table.csv").write_text("1,2,3")
    (tmp_path / "notes.doc").write_text("text")
    messages = {
        "unnamed.npz": "must hold one array, or one named inputs, images, features or x; it holds a, b",
        "empty.npz": "it holds nothing",
        "torn.npz": "cannot be read as arrays of numbers",
        "torn.npy": "cannot be read as arrays of numbers",
        "void.npy": "cannot be read as arrays of numbers",
        "table.csv": "was not trained on a table of your own",
        "notes.doc": "must be a .npy or .npz file, a table or a folder of images",
        "absent.npy": "does not exist",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            load_inputs(tmp_path / name, (3,))


@pytest.mark.parametrize("kind", ["array", "bare"])
def test_nothing_is_unpickled(tmp_path, kind):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    content = io.BytesIO()
    if kind == "array":
        np.save(content, np.array([Trap()], object), allow_pickle=True)
    else:
        pickle.dump(Trap(), content)
    (tmp_path / "trap.npy").write_bytes(content.getvalue())
    with pytest.raises(InputError, match="cannot be read as arrays of numbers"):
        load_inputs(tmp_path / "trap.npy", (3,))
    assert not (tmp_path / "sprung").exists()


def test_a_folder_of_images_is_read_in_the_order_of_its_names_and_resized(tmp_path):
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    Image.new("RGB", (5, 4), (10, 20, 30)).save(folder / "b" / "1.PNG")
    Image.new("L", (50, 40), 77).save(folder / "a.png")
    (folder / "notes.txt").write_text("text")
    found = load_inputs(folder, (3, 4, 5))
    assert found.files == ("a.png", "b/1.PNG")
    assert found.values.shape == (2, 3, 4, 5)
    assert np.unique(found.values[0]).tolist() == [77]
    assert found.values[1, :, 0, 0].tolist() == [10, 20, 30]
    assert load_inputs(folder, (1, 4, 5)).values.shape == (2, 1, 4, 5)
    with pytest.raises(InputError, match="takes 3 features, not images"):
        load_inputs(folder, (3,))
    (folder / "torn.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot be read \(torn\.jpg: not an image\); replace or remove"):
        load_inputs(folder, (3, 4, 5))
    (folder / "c").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        load_inputs(folder / "c", (3, 4, 5))
