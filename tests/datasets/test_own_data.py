"""A user's own data: one content, whatever the container; splits; preprocessing; noise."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from own_files import (
    features,
    image_table,
    labels_of,
    pixels,
    write_flat,
    write_folder,
    write_image_parquet,
    write_saved,
)
from PIL import Image

from nls_tune import Data, InputError
from nls_tune.datasets import Source, load_own, make_noisy
from nls_tune.datasets.decoding import DEFAULT_SIDE
from nls_tune.noise import parse_noise_level
from nls_tune.plan.transition import matrix_of

GIVEN = parse_noise_level("given")


def load(data: Data, **more: object) -> Source:
    return load_own(data, progress=False, **more)


def same(first: Source, second: Source) -> bool:
    names = ("inputs", "labels", "test_inputs", "test_labels", "input_mean", "input_std")
    arrays = all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)
    noisy = [make_noisy(source, GIVEN, train_size=8) for source in (first, second)]
    return arrays and first.fingerprint == second.fingerprint and noisy[0].fingerprint == noisy[1].fingerprint


# Containers


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    return pixels(40), labels_of(40)


def test_images_are_the_same_in_every_container(pictures, tmp_path):
    images, labels = pictures
    order = np.random.default_rng(1).permutation(40)
    write_flat(tmp_path / "flat", images[order], labels[order], tmp_path / "flat.csv")
    np.savez(tmp_path / "x.npz", images=images[order], labels=labels[order])
    np.savez(tmp_path / "named.npz", x=images, y=(labels == "dog").astype(int), class_names=["cat", "dog"])
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", labels)
    named = image_table(images, labels, ["cat", "dog"])
    sources = [
        Data.from_folder(write_folder(tmp_path / "folder", images, labels)),
        Data.from_folder(tmp_path / "flat", table=tmp_path / "flat.csv", label="kind"),
        Data.from_folder(tmp_path / "flat", table=pd.read_csv(tmp_path / "flat.csv"), label="kind"),
        Data.from_table(write_image_parquet(tmp_path / "x.parquet", images[order], labels[order]), label="label"),
        Data.from_table(write_image_parquet(tmp_path / "n.parquet", images, labels, ["cat", "dog"]), label="label"),
        Data.from_table(write_saved(tmp_path / "saved", named), label="label"),
        Data(arrays=tmp_path / "x.npz"),
        Data(arrays=tmp_path / "named.npz"),
        Data(arrays=tmp_path / "x.npy", label=str(tmp_path / "y.npy")),
        Data.from_arrays(images[order], labels[order]),
    ]
    first, *others = [load(dataclasses.replace(data, test=0.2)) for data in sources]
    assert first.own.class_names == ("cat", "dog")
    assert first.inputs.shape == (32, 3, 8, 8)
    assert [same(first, other) for other in others] == [True] * 9
    # The pixels are those of the images, with their labels.
    known = {image.transpose(2, 0, 1).tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert [known[image.tobytes()] for image in first.inputs] == [first.own.class_names[y] for y in first.labels]


def test_a_shard_is_a_part_of_a_table(pictures, tmp_path):
    images, labels = pictures
    (tmp_path / "shards").mkdir()
    for i in range(2):
        write_image_parquet(tmp_path / "shards" / f"train-{i:05}-of-00002.parquet", images[i::2], labels[i::2])
    assert same(load(Data.from_table(tmp_path / "shards", label="label")), load(Data.from_arrays(images, labels)))


@pytest.mark.parametrize("change", ["pixel", "label", "name"])
def test_another_content_has_another_fingerprint(pictures, change):
    images, labels = pictures
    before = load(Data.from_arrays(images, labels))
    if change == "pixel":
        images = images.copy()
        images[0, 0, 0, 0] ^= 1
    elif change == "label":
        labels = np.where(np.arange(40) == 3, "cat", labels)
    else:
        labels = np.where(labels == "dog", "wolf", labels)
    assert load(Data.from_arrays(images, labels)).fingerprint != before.fingerprint


def test_tables_are_the_same_in_every_container(tmp_path):
    frame = features()
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv", index=False, sep=";")
    frame.to_csv(tmp_path / "c.tsv", index=False, sep="\t", encoding="utf-8-sig")
    frame.to_parquet(tmp_path / "d.parquet")
    frame.astype({"colour": "category"}).sample(frac=1, random_state=3).to_parquet(tmp_path / "e.parquet")
    more = {"label": "answer", "drop": "truth", "test": 0.2}
    frame.to_csv(tmp_path / "f.csv")
    frame.set_index("size").to_parquet(tmp_path / "g.parquet")
    first, *others = [load(Data.from_table(file, **more)) for file in sorted(tmp_path.iterdir())]
    assert "the first column of" in others[4].own.notes[0]
    others.append(load(Data.from_dataframe(frame.sample(frac=1, random_state=4), **more)))
    assert [same(first, other) for other in others] == [True, True, True, True, True, False, True]
    assert others[5].inputs.shape == first.inputs.shape  # a named index is a column, but the last one


def test_embeddings_are_the_same_as_a_file_and_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(50, 6)).astype(np.float32), rng.integers(3, size=50)
    np.savez(tmp_path / "x.npz", embeddings=inputs, y=labels[:, None])
    pd.DataFrame(inputs, columns=list("abcdef")).assign(y=labels).to_parquet(tmp_path / "x.parquet")
    first = load(Data(arrays=tmp_path / "x.npz"))
    assert same(first, load(Data.from_arrays(inputs.astype(np.float64), labels)))
    assert same(first, load(Data.from_table(tmp_path / "x.parquet", label="y")))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 2, 1] * 4, ("1", "2", "10")),
        ([10.0, 2.0, 1.0] * 4, ("1", "2", "10")),
        (["10", "2", "1"] * 4, ("1", "2", "10")),
        (["b", "10", "a"] * 4, ("10", "a", "b")),
        ([True, False, True] * 4, ("False", "True")),
    ],
)
def test_classes_are_numbered_by_value_or_by_the_alphabet(labels, names):
    source = load(Data.from_arrays(np.random.default_rng(0).normal(size=(12, 2)), np.array(labels)))
    assert source.own.class_names == names
    assert sorted(set(source.labels)) == list(range(len(names)))


@pytest.mark.real_data
def test_real_images_are_those_of_the_built_in_dataset(load_real, real_data):
    file = next((real_data / "cifar10").glob("test-*.parquet"))
    source, known = load(Data.from_table(file, label="label")), load_real("cifar10")
    assert source.own.class_names == tuple(map(str, range(10)))
    pairs = [
        sorted(zip((image.tobytes() for image in inputs), labels.tolist(), strict=True))
        for inputs, labels in ((source.inputs, source.labels), (known.test_inputs, known.test_labels))
    ]
    assert pairs[0] == pairs[1]


# Images


def as_seen(image: Image.Image, tmp_path, kind: str = "png", **more: object) -> np.ndarray:
    """Return what is read of an image, next to others in colour."""
    folder = tmp_path / "seen"
    write_folder(folder, pixels(4), np.array(["a", "a", "b", "b"]))
    (folder / "z").mkdir()
    for i in range(2):
        image.save(folder / "z" / f"{i}.{kind}", **more)
    source = load(Data.from_folder(folder), val_fraction=0.2)
    (label,) = (i for i, name in enumerate(source.own.class_names) if name == "z")
    return source.inputs[source.labels == label][0]


def test_images_of_every_kind_are_read(tmp_path_factory):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    three = np.stack([grey] * 3)
    colour = pixels(1, seed=5)[0]
    alpha = np.full((8, 8), 0, np.uint8)
    transparent = Image.fromarray(np.dstack([colour, alpha]))
    cases = [
        (Image.fromarray(grey), three, "png"),
        (Image.fromarray(grey), three, "bmp"),
        (Image.fromarray(grey.astype(np.uint16) * 257), three, "png"),
        (Image.fromarray(grey).convert("P"), three, "gif"),
        (Image.fromarray(colour), colour.transpose(2, 0, 1), "tiff"),
        (Image.fromarray(colour).convert("RGBA"), colour.transpose(2, 0, 1), "png"),
        (transparent, np.full((3, 8, 8), 255), "png"),
        (Image.fromarray(grey > 100), 255 * (three > 100), "png"),
    ]
    for image, expected, kind in cases:
        assert np.array_equal(as_seen(image, tmp_path_factory.mktemp("kind"), kind), expected), (image.mode, kind)


def test_an_image_stands_as_its_camera_says(tmp_path):
    image = Image.fromarray(pixels(1, seed=5)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    seen = as_seen(image, tmp_path, exif=exif)
    assert np.array_equal(seen, np.asarray(image.transpose(Image.Transpose.ROTATE_270)).transpose(2, 0, 1))


def test_images_without_colour_have_one_channel(tmp_path):
    grey = np.repeat(pixels(20)[..., :1], 3, axis=3)
    source = load(Data.from_folder(write_folder(tmp_path / "grey", grey, labels_of(20))))
    assert source.inputs.shape[1:] == (1, 8, 8)
    assert same(source, load(Data.from_arrays(grey[..., 0], labels_of(20))))
    assert same(source, load(Data.from_arrays(grey[..., :1], labels_of(20))))
    assert source.input_mean.shape == (1,)


def test_images_of_other_sizes_are_cropped_in_the_centre(tmp_path):
    folder = write_folder(tmp_path / "folder", pixels(4), labels_of(4))
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (10, 20, 30)
    Image.fromarray(wide).save(folder / "cat" / "wide.png")
    source = load(Data.from_folder(folder))
    assert source.inputs.shape[1:] == (3, DEFAULT_SIDE, DEFAULT_SIDE)
    assert any("brought to 32 x 32 pixels; --image-size" in note for note in source.own.notes)
    source = load(Data.from_folder(folder, image_size=10))
    assert source.inputs.shape[1:] == (3, 10, 10)
    flat = source.inputs.reshape(len(source.inputs), 3, -1)
    # What lies beside the crop shines in a little at its edges.
    assert (np.abs(flat - np.array([[10.0], [20], [30]])) <= 5).all(axis=(1, 2)).sum() == 1
    assert not [note for note in source.own.notes if "brought" in note]


def test_unreadable_images_are_left_out_if_asked(tmp_path):
    folder = write_folder(tmp_path / "folder", pixels(10), labels_of(10))
    before = load(Data.from_folder(folder))
    (folder / "cat" / "torn.png").write_bytes(b"torn")
    (folder / "dog" / "zero.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="2 of 12 images"):
        load(Data.from_folder(folder))
    after = load(Data.from_folder(folder, skip_unreadable=True))
    assert same(before, after)
    assert any("2 images of" in note and "torn.png: not an image" in note for note in after.own.notes)


def test_images_without_a_row_are_left_out_if_asked(tmp_path):
    write_flat(tmp_path / "flat", pixels(10), labels_of(10), tmp_path / "all.csv")
    pd.read_csv(tmp_path / "all.csv")[:6].to_csv(tmp_path / "some.csv", index=False)
    pd.read_csv(tmp_path / "all.csv")[6:].to_csv(tmp_path / "rest.csv", index=False)
    some = Data.from_folder(tmp_path / "flat", table=tmp_path / "some.csv", label="kind", skip_unreadable=True)
    source = load(some)
    assert len(source.labels) == 6
    assert any("4 images without a label" in note for note in source.own.notes)
    source = load(dataclasses.replace(some, skip_unreadable=False, test=tmp_path / "rest.csv"))
    assert (len(source.labels), len(source.test_labels)) == (6, 4)


# Splits


def sides(source: Source) -> dict[str, np.ndarray]:
    val = source.own.val_rows
    train = np.setdiff1d(np.arange(len(source.labels)), val)
    return {"train": source.inputs[train], "val": source.inputs[val], "test": source.test_inputs}


def test_shares_are_exact_and_stratified_and_the_test_set_is_the_same_for_every_seed():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [500, 300, 200])
    data = Data.from_arrays(rng.normal(size=(1000, 3)), labels, val=0.25, test=0.1)
    first, second = load(data), load(data, split_seed=1)
    for source in (first, second):
        assert [len(side) for side in sides(source).values()] == [675, 225, 100]
        assert np.bincount(source.test_labels).tolist() == [50, 30, 20]
        val = np.bincount(source.labels[source.own.val_rows])
        assert np.abs(val - [112.5, 67.5, 45]).max() <= 1
    assert np.array_equal(np.sort(first.test_labels), np.sort(second.test_labels))
    assert first.fingerprint != second.fingerprint  # other samples validate
    assert load(data).fingerprint == first.fingerprint


@pytest.mark.parametrize(("number", "share"), [(60, 0.2), (10_000, 0.1)])
def test_a_fifth_validates_and_a_tenth_of_many(number, share):
    rng = np.random.default_rng(0)
    source = load(Data.from_arrays(rng.normal(size=(number, 2)), rng.integers(2, size=number)))
    assert len(source.own.val_rows) == share * number


def test_equal_samples_stand_on_one_side():
    images, labels = pixels(40), labels_of(40)
    twice = np.concatenate([images, images[:15], images[:5]])
    other = np.where(np.arange(5) < 3, "dog", "cat")
    data = Data.from_arrays(twice, np.concatenate([labels, labels[:15], other]), val=0.3, test=0.3)
    for seed in range(5):
        source = load(data, split_seed=seed)
        found = [{image.tobytes() for image in side} for side in sides(source).values()]
        assert not found[0] & found[1]
        assert not found[2] & (found[0] | found[1])
        assert sum(map(len, sides(source).values())) == 60
        assert "20 samples are equal to another one, 3 inputs with different labels" in source.own.notes[0]


def test_samples_of_a_test_file_are_left_out_of_training(tmp_path):
    images, labels = pixels(40), labels_of(40)
    data = Data.from_arrays(images, labels, val=(images[20:30], labels[20:30]), test=(images[25:34], labels[25:34]))
    source = load(data)
    assert [len(side) for side in sides(source).values()] == [26, 5, 9]
    assert "14 training samples left out" in source.own.notes[1]
    assert "5 validation samples left out" in source.own.notes[2]


def test_a_group_is_never_split():
    rng = np.random.default_rng(0)
    who = rng.integers(25, size=300)
    inputs = np.column_stack([rng.normal(size=300), who])
    source = load(Data.from_arrays(inputs, rng.integers(2, size=300), groups=who, val=0.2, test=0.2))
    scale = source.own.preprocessing["columns"][1]
    found = [set(np.round(side[:, 1] * scale["std"] + scale["mean"])) for side in sides(source).values()]
    assert not found[0] & found[1]
    assert not found[2] & (found[0] | found[1])
    assert np.allclose([len(side) / 300 for side in sides(source).values()], [0.64, 0.16, 0.2], atol=0.05)
    assert set().union(*found) == set(range(25))


def test_what_no_split_divides_is_known_to_the_folds_as_well():
    rng = np.random.default_rng(0)
    who, inputs, labels = rng.integers(25, size=300), rng.normal(size=(300, 2)), rng.integers(2, size=300)
    grouped = make_noisy(load(Data.from_arrays(inputs, labels, groups=who, val=0.2)), parse_noise_level("given"))
    rows = np.concatenate([grouped.train_indices, grouped.val_indices])
    assert len(np.unique(grouped.units[rows])) == 25
    assert not set(grouped.units[grouped.train_indices]) & set(grouped.units[grouped.val_indices])
    alone = make_noisy(load(Data.from_arrays(inputs, labels, val=0.2)), parse_noise_level("given"))
    assert alone.units is None


def test_equal_rows_of_a_table_do_not_tie_its_groups_together():
    rng = np.random.default_rng(0)
    inputs, labels, who = rng.integers(3, size=(200, 1)), rng.integers(2, size=200), np.arange(200) // 10
    source = load(Data.from_arrays(inputs, labels, groups=who, test=0.25))
    assert [len(side) for side in sides(source).values()] == [120, 30, 50]
    assert "the groups say what stays together" in source.own.notes[0]


def test_nothing_is_left_to_train_on():
    images, labels = pixels(20), labels_of(20)
    with pytest.raises(InputError, match="no training sample of the arrays is left: 20 training samples left out"):
        load(Data.from_arrays(images, labels, test=(images, labels)))


def test_a_class_that_only_validates_is_refused():
    images, labels = pixels(20), np.array(["a"] * 9 + ["b"] * 9 + ["c"] * 2)
    images[18:] = images[18]  # the two of class c are one image
    with pytest.raises(InputError, match=r"no training sample left \(c\): .*; 2 training samples left out: equal"):
        load(Data.from_arrays(images, labels, val=(images[18:], labels[18:])))


# Features


def test_preprocessing_is_learned_from_training_rows_and_kept():
    frame = features(200)
    frame.loc[7, "colour"] = "pink"  # a single sample
    for seed in range(4):
        source = load(Data.from_dataframe(frame, label="answer", drop="truth", test=0.2), split_seed=seed)
        size, weight, colour = source.own.preprocessing["columns"]
        train = sides(source)["train"]
        assert train.shape == (128, 3 + len(colour["categories"]))
        assert np.allclose(train[:, :2].mean(0), 0, atol=1e-5)
        assert np.allclose(train[:, :2].std(0), 1, atol=1e-5)
        assert not np.allclose(source.inputs[:, :2].mean(0), 0, atol=1e-5)
        assert set(np.unique(source.inputs[:, 2:])) == {0.0, 1.0}
        assert (size["missing_column"], weight["missing_column"]) == (False, True)
        # What is kept gives the same inputs again.
        known = frame["size"].to_numpy()
        for side in sides(source).values():
            for inputs in side:
                row = frame.loc[np.abs(known - (inputs[0] * size["std"] + size["mean"])).argmin()]
                gap = pd.isna(row["weight"])
                filled = weight["median"] if gap else row["weight"]
                assert inputs[1] == pytest.approx((filled - weight["mean"]) / weight["std"], abs=1e-5)
                assert inputs[2] == gap
                assert inputs[3:].tolist() == [row["colour"] == one for one in colour["categories"]]
    assert source.input_mean.tolist() == [0] * source.inputs.shape[1]


def test_a_column_of_a_test_file_has_the_kind_it_has_in_training(tmp_path):
    frame = features(100)
    frame.to_csv(tmp_path / "train.csv", index=False)
    test = features(20, seed=1).assign(colour="pink", weight=None)
    test.to_csv(tmp_path / "test.csv", index=False)
    source = load(Data.from_table(tmp_path / "train.csv", label="answer", drop="truth", test=tmp_path / "test.csv"))
    assert not source.test_inputs[:, 3:].any()
    assert source.test_inputs[:, 2].all()


def test_only_the_features_asked_for_are_taken():
    source = load(Data.from_dataframe(features(), label="answer", features="size"))
    assert source.inputs.shape == (60, 1)
    source = load(Data.from_dataframe(features(), label="answer", drop=["truth", "colour"]))
    assert [step["column"] for step in source.own.preprocessing["columns"]] == ["size", "weight"]


# Noise


def test_given_labels_have_an_unknown_noise_rate():
    source = load(Data.from_dataframe(features(), label="answer", drop="truth"))
    for text in ("given", "symmetric:0.2"):
        dataset = make_noisy(source, parse_noise_level(text))
        assert (dataset.noise_rate, dataset.clean_labels, dataset.test_labels) == (None, None, None)
    assert np.array_equal(make_noisy(source, GIVEN).noisy_labels, source.labels)
    changed = make_noisy(source, parse_noise_level("symmetric:0.2")).noisy_labels != source.labels
    assert 0 < changed.mean() < 0.5
    with pytest.raises(InputError, match="'clean' needs clean labels"):
        make_noisy(source, parse_noise_level("clean"))


def test_known_clean_labels_tell_the_noise_rate_and_are_those_of_the_test():
    frame = features(300)
    source = load(Data.from_dataframe(frame, label="answer", clean_labels="truth", test=0.3))
    dataset, clean = make_noisy(source, GIVEN), make_noisy(source, parse_noise_level("clean"))
    wrong = source.labels != source.own.clean_labels
    assert dataset.noise_rate == wrong.mean() > 0.1
    assert clean.noise_rate == 0
    assert np.array_equal(clean.noisy_labels, source.own.clean_labels)
    names = np.array(source.own.class_names)
    counts = pd.Series(names[np.concatenate([source.own.clean_labels, source.test_labels])]).value_counts()
    assert counts.to_dict() == frame["truth"].value_counts().to_dict()


def test_clean_validation_labels_stay_clean():
    frame = features(300)
    val = features(50, seed=1)
    val["answer"] = val["truth"]
    data = Data.from_dataframe(frame, label="answer", clean_labels="truth", val=val, val_clean=True)
    source = load(data)
    noisy = make_noisy(source, parse_noise_level("symmetric:0.4"))
    rows = noisy.val_indices
    assert np.array_equal(noisy.noisy_labels[rows], source.labels[rows])
    train = noisy.noisy_labels[noisy.train_indices] != source.own.clean_labels[noisy.train_indices]
    assert noisy.noise_rate == train.mean()
    assert not noisy.may_be_wrong(rows).any()
    assert noisy.may_be_wrong(noisy.train_indices).all()
    right = np.diag(matrix_of("true_noise", noisy, None))
    assert right.mean() == pytest.approx(1 - train.mean(), abs=0.05)  # validation samples would make it 0.65
    assert "the validation labels are taken as clean; no noise is put on them" in source.own.notes
