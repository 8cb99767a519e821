"""Tests of transition matrices, made and read."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune import noise
from nls_tune.errors import InputError
from nls_tune.noise import corrupt_labels, parse_noise_level

CIFAR10_MAP = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


def clean_labels(count, classes):
    return np.arange(count) % classes


class TestMatrices:
    @given(classes=st.integers(2, 40), rate=st.floats(0, 1))
    def test_rows_sum_to_1_and_the_diagonal_keeps_the_rest(self, classes, rate):
        symmetric, pairflip = noise.symmetric_matrix(classes, rate), noise.pairflip_matrix(classes, rate)
        for matrix in (symmetric, pairflip):
            np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)
            np.testing.assert_array_equal(np.diag(matrix), 1 - rate)
        assert np.unique(symmetric[~np.eye(classes, dtype=bool)]).tolist() == [rate / (classes - 1)]
        np.testing.assert_array_equal(np.roll(pairflip, -1, axis=1).diagonal(), rate)

    def test_asymmetric_flips_only_what_is_mapped_to_another_class(self):
        matrix = noise.asymmetric_matrix(10, 0.3, CIFAR10_MAP)
        for clean in range(10):
            expected = np.eye(10)[clean]
            if clean in CIFAR10_MAP:
                expected = 0.7 * expected + 0.3 * np.eye(10)[CIFAR10_MAP[clean]]
            np.testing.assert_array_equal(matrix[clean], expected)
        for class_map in ({0: 10}, {10: 0}, {-1: 0}, {3: 3}):
            with pytest.raises(InputError, match="must take classes 0 to 9 to other ones"):
                noise.asymmetric_matrix(10, 0.3, class_map)

    def test_refuse_rates_and_one_class(self):
        for make in (noise.symmetric_matrix, noise.pairflip_matrix):
            for rate in (-0.1, 1.1, math.nan):
                with pytest.raises(InputError, match="a noise rate must be from 0 to 1"):
                    make(10, rate)
            with pytest.raises(InputError, match="at least 2 classes, got 1"):
                make(1, 0.2)

    def test_files_of_every_format_give_the_same_matrix(self, tmp_path):
        expected = noise.symmetric_matrix(3, 0.3)
        rows = expected.tolist()
        np.save(tmp_path / "m.npy", expected)
        (tmp_path / "m.json").write_text(json.dumps(rows))
        lines = [",".join(map(str, row)) for row in rows]
        (tmp_path / "m.csv").write_text("\ufeff# rows: clean\n" + "\n".join(lines) + "\n\n")
        (tmp_path / "m.txt").write_text("\n".join("  ".join(map(str, r)) for r in rows))
        for name in ("m.npy", "m.json", "m.csv", "m.txt"):
            np.testing.assert_array_equal(noise.read_matrix(tmp_path / name, 3), expected)
            level = parse_noise_level(f"matrix:{tmp_path / name}")
            labels = corrupt_labels(level, clean_labels(99, 3), num_classes=3, noise_seed=0)
            np.testing.assert_array_equal(labels, noise.apply_transition(clean_labels(99, 3), expected, 0))

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("m.xlsx", "", r"must be in a .npy, .csv, .txt, .json file, got .*m.xlsx"),
            ("m.csv", None, "cannot read .*m.csv.*No such file"),
            ("m.csv", "", r"must be 2 x 2, .*got shape \(0,\)"),
            ("m.npy", "", "cannot read"),
            ("m.npy", "rubbish", "cannot read"),
            ("m.json", "[[1, 0]", "cannot read"),
            ("m.json", '{"a": 1}', "cannot read"),
            ("m.json", "[" * 100_000, "cannot read .*nested too deep"),
            ("m.csv", "\u0661,\u0660\n0,1", "cannot read .*could not convert string to float"),
            ("m.csv", "1_0,0\n0,1", "cannot read .*could not convert string to float"),
            ("m.csv", "1,0\n0", "cannot read .*; it must hold 2 rows of 2 numbers"),
            ("m.csv", "a,b\n1,0\n0,1", "cannot read .*could not convert string to float"),
            ("m.csv", "1,0,0\n0,1,0\n0,0,1", r"2 x 2, one row per clean class, got shape \(3, 3\)"),
            ("m.csv", "1,0\n0.5,nan", "finite and not negative, got nan in row 1, column 1"),
            ("m.csv", "1.2,-0.2\n0,1", "got -0.2 in row 0, column 1"),
            ("m.csv", "1,0\n0.5,0.4", "sum to 1 within 1e-06, got 0.9 in row 1; divide"),
        ],
    )
    def test_files_that_hold_no_matrix(self, tmp_path, name, content, message):
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        with pytest.raises(InputError, match=message) as raised:
            noise.read_matrix(path, 2)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_torn_and_lying_headers_of_npy_are_one_line(self, tmp_path):
        path = tmp_path / "m.npy"
        np.save(path, np.eye(2))
        whole = path.read_bytes()
        lying = whole.replace(b"(2, 2)", b"(1000000, 1000000)").replace(b" " * 14 + b"\n", b"\n")
        torn = [whole[:length] for length in (3, 9, 40, 127, len(whole) - 1)]
        for content in (*torn, lying, whole.replace(b"<f8", b"<M8"), whole.replace(b"<f8", b"<c8")):
            path.write_bytes(content)
            with pytest.raises(InputError, match="cannot read a transition matrix") as raised:
                noise.read_matrix(path, 2)
            assert "\n" not in str(raised.value)

    def test_a_path_may_begin_with_a_tilde(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "m.csv").write_text("1,0\n0,1")
        labels = corrupt_labels(parse_noise_level("matrix:~/m.csv"), clean_labels(8, 2), num_classes=2, noise_seed=0)
        assert labels.tolist() == clean_labels(8, 2).tolist()
        with pytest.raises(InputError, match="cannot read"):
            noise.read_matrix("~nobody-of-this-name/m.csv", 2)

    def test_folders_and_pickles_are_never_loaded(self, tmp_path):
        (tmp_path / "m.csv").mkdir()
        np.save(tmp_path / "m.npy", np.array([[{}, 0], [0, 1]], dtype=object), allow_pickle=True)
        for name in ("m.csv", "m.npy"):
            with pytest.raises(InputError, match="cannot read"):
                noise.read_matrix(tmp_path / name, 2)
