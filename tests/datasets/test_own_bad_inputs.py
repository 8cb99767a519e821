"""What is wrong with a user's own data is said in one line, before Ray starts."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import is_one_line_error
from own_files import (
    bomb,
    features,
    image_table,
    labels_of,
    pixels,
    png,
    write_flat,
    write_folder,
    write_image_parquet,
    write_saved,
)  # fmt: skip

from nls_tune import Data
from nls_tune.cli.exit import run_app
from nls_tune.cli.search import app
from nls_tune.errors import InputError

IMAGES = [
    ("--images absent", "--images must be a folder", "absent does not exist"),
    ("--images good.csv", "good.csv is a file"),
    ("--images empty", "empty holds no images"),
    ("--images texts", "texts holds no images"),
    ("--images loose", "holds 3 images and no folder per class", "--table FILE --label COLUMN"),
    ("--images mixed", "1 image of mixed lie outside of its class folders (lost.png)"),
    ("--images hollow", "1 class folder of hollow hold no images (fox)"),
    ("--images splits", "train, val of splits look like splits", "--images splits/train --test splits/val"),
    ("--images one", "one has one class only (cat); at least 2"),
    ("--images rare", "1 class of rare have fewer than 2 samples (fox)"),
    ("--images zero", "1 of 11 images in zero cannot be read (cat/zero.png: it is empty)", "--skip-unreadable"),
    ("--images torn", "2 of 12 images in torn cannot be read", "cat/torn.png", "dog/text.png: not an image"),
    ("--images bomb", "cat/bomb.png: a decompression bomb"),
    ("--images linked", "1 link in linked lead out of it (cat/out.png)", "copy the files"),
    ("--images linked_folder", "1 link in linked_folder lead out of it (fox)"),
    ("--images good --table good.csv", "--table needs --label COLUMN"),
    ("--images good --label kind", "--label needs --table FILE"),
    ("--images good --group who", "--group needs --table FILE"),
    ("--images good --features size", "--features is for a --table of features"),
    ("--images good --dataset cifar10", "--dataset cifar10 is built in: with your own data leave it out"),
    ("--images good --dataset twonorm", "--dataset twonorm is built in"),
    ("--images good --arrays x.npz", "--images and --arrays are two sources"),
    ("--images good --image-size 3", "--image-size", "greater than or equal to 4", "got 3"),
    ("--images good --val 1.5", "--val must be a file or a share between 0 and 1, got 1.5"),
    ("--images good --val 0.2 --val-fraction 0.3", "--val and --val-fraction both say"),
    ("--images good --test absent", "--images must be a folder, absent does not exist"),
    ("--images good --val-clean", "--val-clean is for a validation file of its own"),
    ("--images good --test rare", "rare has 1 class that the training labels do not have (fox)"),
    ("--images good --test-size 5", "--test-size needs test samples", "--test"),
    ("--images good --noise clean", "'clean' needs clean labels", "--clean-labels COLUMN"),
    ("--images good --noise human:worst", "good has no human labels"),
    ("--images good --noise asymmetric:0.3", "good defines none", "pairflip:0.3"),
    ("--images flat --table flat.csv --label sort", "unknown column of flat.csv 'sort'", "valid: file_name, kind"),
    ("--images flat --table good.csv --label answer", "needs a column that names the files (path, file"),
    ("--images flat --table up.csv --label kind", "1 path in column file_name of up.csv lead out of flat (../x.png)"),
    ("--images flat --table root.csv --label kind", "1 path", "lead out of flat (/etc/x.png)"),
    ("--images flat --table gone.csv --label kind", "1 label in column file_name of gone.csv have no file", "gone.png"),
    ("--images flat --table nameless.csv --label kind", "names no file in 1 row (first: row 2)"),
    ("--images flat --table again.csv --label kind", "names 1 file more than once (image 0.png)"),
    ("--images flat --table part.csv --label kind", "2 images of flat have no label", "--skip-unreadable"),
]
TABLES = [
    ("--table absent.csv --label y", "absent.csv does not exist"),
    ("--table good.csv", "--table needs --label COLUMN"),
    ("--table good.csv --label awnser", "--label: unknown column of good.csv 'awnser' (did you mean 'answer'?)"),
    ("--table good.csv --label answer --features sise", "--features: unknown column", "did you mean 'size'?"),
    ("--table good.csv --label answer --drop wait", "--drop: unknown column", "did you mean 'weight'?"),
    ("--table good.csv --label answer --features size --drop size", "--features and --drop both name size"),
    ("--table good.csv --label answer --features answer", "--features names answer, which tells of the label"),
    ("--table good.csv --label answer --group whom", "--group: unknown column of good.csv 'whom'"),
    ("--table good.csv --label answer --clean-labels trut", "--clean-labels: unknown column", "'truth'?"),
    ("--table good.csv --label answer --drop size,weight,colour,truth", "no column left for features"),
    ("--table good.csv --label weight", "is missing in 9 rows (first: row 3)"),
    ("--table good.csv --label size", "must name classes, got the number"),
    ("--table good.csv --label answer --image-size 32", "--image-size is for images", "good.csv holds features"),
    ("--table good.csv --label answer --test other.csv", "unknown column of other.csv 'answer'"),
    ("--table good.csv --label answer --test short.csv", "a feature: unknown column of short.csv 'colour'"),
    ("--table nothing.csv --label y", "nothing.csv is empty"),
    ("--table head.csv --label y", "head.csv holds no rows"),
    ("--table headless.csv --label y", "its first line is 1.5, 2, 0; write the names of the columns there"),
    ("--table latin.csv --label y", "latin.csv is not UTF-8 (byte", "save it as UTF-8"),
    ("--table ragged.csv --label y", "ragged.csv cannot be read as CSV", "line 3"),
    ("--table twice.csv --label y", "1 column name more than once (x)"),
    ("--table gaps.csv --label y", "is missing in 2 rows (first: row 1)"),
    ("--table constant.csv --label y", "1 column of constant.csv hold the same value in every row (z); --drop z"),
    ("--table void.csv --label y", "1 column of void.csv hold no value at all (z); --drop z"),
    ("--table infinite.csv --label y", "infinite.csv holds infinite values: 2 in column x"),
    ("--table mixed.csv --label y", "mixes 9 numbers with 1 text (first: 'many' in row 4)", "--drop x"),
    ("--table words.csv --label y", "holds 160 different texts", "at most 100", "--drop x"),
    ("--table many.csv --label y", "1,200 different values, at most 1,000 can be classes"),
    ("--table single.csv --label y", "single.csv has one class only (a)"),
    ("--table rare.csv --label y", "1 class of rare.csv have fewer than 2 samples (b)"),
    ("--table good.txt.gz --label y", "must be a file .csv, .tsv or .parquet"),
    ("--table false.parquet --label y", "false.parquet cannot be read as Parquet"),
    ("--table torn.parquet --label y", "torn.parquet cannot be read as Parquet"),
    ("--table times.parquet --label y", "column x of times.parquet holds times", "--drop x"),
    ("--table lists.parquet --label y", "column x of lists.parquet must hold texts or numbers, got ndarray"),
    ("--table doubled.parquet --label y", "1 column name more than once (x)"),
    ("--table pathless.parquet --label label", "holds no bytes in 10 rows"),
    ("--table images.parquet --label label --drop label", "holds images: leave out --features and --drop"),
    ("--table empty --label y", "empty holds no table"),
    ("--table dict --label label", "dict holds several splits (train)", "--table dict/train"),
    ("--table saved_torn --label label", "saved_torn cannot be read as a saved dataset"),
    ("--table saved_out --label label", "names a file outside of its folder (../x.arrow)"),
    ("--table numbered.parquet --label label", "must be 0 to 1, got 7"),
    ("--table lonely.csv --label y --group who", "is missing in 1 row"),
]
ARRAYS = [
    ("--arrays absent.npz", "absent.npz does not exist"),
    ("--arrays empty", "empty is a folder"),
    ("--arrays good.csv", "good.csv must be a file .npz"),
    ("--arrays x.npy", "x.npy holds inputs only; give its labels with --label FILE.npy"),
    ("--arrays x.npy --label y3.npy", "one value for each of the 20 inputs, got shape (3,)"),
    ("--arrays false.npz", "false.npz is not an .npz or .npy file"),
    ("--arrays torn.npz", "torn.npz cannot be read"),
    ("--arrays objects.npz", "objects.npz holds Python objects; pickles are not read"),
    ("--arrays pickled.npz", "pickled.npz is not an .npz or .npy file; pickles are not read, since that can run code"),
    ("--arrays unlabelled.npz", "unlabelled.npz needs an array of --label (labels, label, y, Y and 3 more)"),
    ("--arrays x.npz --label z", "--label: unknown array of x.npz 'z'"),
    ("--arrays lengths.npz", "one value for each of the 20 inputs, got shape (19,)"),
    ("--arrays floats.npz", "must be uint8 images", "float64 of shape (20, 8, 8)"),
    ("--arrays deep.npz", "must be uint8 images", "int32"),
    ("--arrays first.npz", "must have the channels last", "transpose it with (0, 2, 3, 1)"),
    ("--arrays flat.npz", "must be images (N, H, W) or (N, H, W, C)", "shape (20,)"),
    ("--arrays infinite.npz", "infinite.npz holds infinite values: 1 in column 2"),
    ("--arrays blank.npz", "1 column of array x of blank.npz hold no value at all (0)"),
    ("--arrays complex.npz", "must hold numbers, got complex128"),
    ("--arrays nought.npz", "holds no samples"),
    ("--arrays parts.npz", "parts.npz has one class only (1)"),
    ("--arrays real_labels.npz", "must name classes, got the number 0.5"),
    ("--arrays x.npz --test wide.npz", "wide.npz has inputs of shape (7,), unlike x.npz"),
    ("--label y", "--label is for your own data; give --images, --table or --arrays with it"),
    ("--test 0.2", "--test is for your own data"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files that the table names."""
    folder = tmp_path_factory.mktemp("world")
    write_images(folder)
    write_tables(folder)
    write_arrays(folder)
    return folder


def write_images(folder: Path) -> None:
    images, labels = pixels(10), labels_of(10)
    for name in ("good", "mixed", "hollow", "zero", "torn", "bomb", "linked", "linked_folder", "rare"):
        write_folder(folder / name, images, labels)
    for name in ("splits/train", "splits/val"):
        write_folder(folder / name, images, labels)
    write_folder(folder / "one", images, np.full(10, "cat"))
    write_folder(folder / "rare", pixels(1, seed=9), np.array(["fox"]))
    for name in ("empty", "texts/cat", "loose", "hollow/fox", "flat"):
        (folder / name).mkdir(parents=True)
    (folder / "texts" / "cat" / "notes.md").write_text("text")
    for i in range(3):
        (folder / "loose" / f"{i}.png").write_bytes(png(images[i]))
    (folder / "mixed" / "lost.png").write_bytes(png(images[0]))
    (folder / "zero" / "cat" / "zero.png").write_bytes(b"")
    (folder / "torn" / "cat" / "torn.png").write_bytes(png(pixels(1, 64)[0])[:2000])
    (folder / "torn" / "dog" / "text.png").write_text("text")
    (folder / "bomb" / "cat" / "bomb.png").write_bytes(bomb())
    (folder / "linked" / "cat" / "out.png").symlink_to(folder / "loose" / "0.png")
    (folder / "linked_folder" / "fox").symlink_to(folder / "loose")
    write_flat(folder / "flat", images, labels, folder / "flat.csv")
    table = pd.read_csv(folder / "flat.csv")
    for name, file in (("up", "../x.png"), ("root", "/etc/x.png"), ("gone", "gone.png"), ("nameless", None)):
        table.assign(file_name=table["file_name"].where(table.index != 2, file)).to_csv(
            folder / f"{name}.csv", index=False
        )
    pd.concat([table, table[:1]]).to_csv(folder / "again.csv", index=False)
    table[:8].to_csv(folder / "part.csv", index=False)


def write_tables(folder: Path) -> None:
    good, y = features(), ["a", "b"] * 5
    good.to_csv(folder / "good.csv", index=False)
    good.rename(columns={"answer": "reply"}).to_csv(folder / "other.csv", index=False)
    good.drop(columns="colour").to_csv(folder / "short.csv", index=False)
    texts = {
        "nothing.csv": b"", "head.csv": b"x,y\n", "headless.csv": b"1.5,2,0\n2.5,3,1\n", "good.txt.gz": b"x",
        "latin.csv": "x,y\n1,gr\xfcn\n".encode("latin-1"), "ragged.csv": b"x,y\n1,a\n1,2,3\n", "false.parquet": b"text",
        "twice.csv": b"x,x,y\n1,2,a\n",
    }  # fmt: skip
    for name, content in texts.items():
        (folder / name).write_bytes(content)
    x = np.arange(10.0)
    frames = {
        "gaps": {"x": x, "y": ["a", None, "b", None, *y[:6]]},
        "constant": {"x": x, "z": 1, "y": y},
        "void": {"x": x, "z": None, "y": y},
        "infinite": {"x": [np.inf, -np.inf, *x[2:]], "y": y},
        "mixed": {"x": [*range(4), "many", *range(5)], "y": y},
        "words": {"x": [f"word {i}" for i in range(200)], "y": y * 20},
        "many": {"x": np.arange(2400), "y": [f"class {i // 2}" for i in range(2400)]},
        "single": {"x": x, "y": "a"},
        "rare": {"x": x, "y": ["b", *["a"] * 9]},
        "lonely": {"x": x, "y": y, "who": ["me", None, *["you"] * 8]},
    }
    for name, columns in frames.items():
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    (folder / "torn.parquet").write_bytes(pq_bytes(good)[:-100])
    pd.DataFrame({"x": pd.date_range("2026-01-01", periods=10), "y": y}).to_parquet(folder / "times.parquet")
    pq.write_table(pa.table({"x": [[1, 2]] * 10, "y": y}), folder / "lists.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array(x), pa.array(x), pa.array(y)], ["x", "x", "y"]),
                   folder / "doubled.parquet")  # fmt: skip
    images, labels = pixels(10), labels_of(10)
    write_image_parquet(folder / "images.parquet", images, labels)
    without = pa.array([{"bytes": None, "path": "x.png"}] * 10, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": without, "label": list(labels)}), folder / "pathless.parquet")
    named = image_table(images, labels, ["cat", "dog"])
    numbers = pa.array([7, *[0, 1] * 4, 0])
    pq.write_table(named.set_column(1, "label", numbers).replace_schema_metadata(named.schema.metadata),
                   folder / "numbered.parquet")  # fmt: skip
    write_saved(folder / "dict" / "train", named)
    (folder / "dict" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    saved = write_saved(folder / "saved_torn", named)
    (saved / "data-00001-of-00002.arrow").write_bytes(b"text")
    out = write_saved(folder / "saved_out", named)
    (out / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')


def pq_bytes(frame: pd.DataFrame) -> bytes:
    return bytes(frame.to_parquet())


def write_arrays(folder: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) % 2
    infinite, blank = x.copy(), x.copy()
    infinite[3, 2], blank[:, 0] = np.inf, np.nan
    files = {
        "x": {"x": x, "y": y}, "lengths": {"x": x, "y": y[:19]}, "unlabelled": {"x": x},
        "floats": {"x": x.repeat(13, 1)[:, :64].reshape(20, 8, 8), "y": y},
        "deep": {"x": np.zeros((20, 8, 8), np.int32), "y": y},
        "first": {"x": np.zeros((20, 3, 8, 8), np.uint8), "y": y}, "flat": {"x": y, "y": y},
        "infinite": {"x": infinite, "y": y}, "blank": {"x": blank, "y": y}, "complex": {"x": x + 1j, "y": y},
        "nought": {"x": x[:0], "y": y[:0]}, "parts": {"x": x, "y": np.ones(20, int)},
        "real_labels": {"x": x, "y": y / 2}, "wide": {"x": x[:, [0, 1, 2, 3, 4, 0, 1]], "y": y},
    }  # fmt: skip
    for name, arrays in files.items():
        np.savez(folder / f"{name}.npz", **arrays)
    np.savez(folder / "objects.npz", x=x, y=np.array(["a", {}] * 10, dtype=object), allow_pickle=True)
    (folder / "pickled.npz").write_bytes(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.")
    (folder / "torn.npz").write_bytes((folder / "x.npz").read_bytes()[:300])
    (folder / "false.npz").write_bytes(b"PK text")
    np.save(folder / "x.npy", x)
    np.save(folder / "y3.npy", y[:3])


@pytest.mark.parametrize(("command", "parts"), [pytest.param(c, p, id=c) for c, *p in (*IMAGES, *TABLES, *ARRAYS)])
def test_it_is_refused_in_one_line(command, parts, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    assert run_app(app, [*shlex.split(command), "--dry-run"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert is_one_line_error(said.err), said.err
    assert [part for part in parts if part not in said.err] == [], said.err


def test_ray_and_torch_are_not_needed_to_refuse(world):
    import subprocess

    code = (
        "import sys; from nls_tune.cli.exit import run_app; from nls_tune.cli.search import app; "
        "assert run_app(app, ['--images', 'torn']) == 2; print(sorted({'ray', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=world, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: Data(), "need a source"),
        (lambda: Data.from_arrays(np.zeros((4, 2)), [0, 1, 0, 1], val=1.0), "--val must be"),
        (lambda: Data.from_arrays(np.zeros((4, 2)), [0, 1, 0, 1], val_clean=True), "--val-clean"),
    ],
)
def test_data_of_python_are_refused_as_well(data, message):
    with pytest.raises(InputError, match=message):
        data()
