"""Labels of several annotators in a user's own tables: what each noise level makes of them, and what is wrong."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_files import annotated, image_table, labels_of, pixels, write_flat

from nls_tune import Data, InputError
from nls_tune.datasets import NoisyDataset, Source, load_own, make_noisy
from nls_tune.noise import parse_noise_level
from nls_tune.noise.annotators import GAP

PEOPLE = ("a", "b", "c")
FRAME = annotated(60).assign(empty=None)
LEVELS = ("majority", "soft", "dawid-skene", "annotator:a")


def load(frame: pd.DataFrame, **more: object) -> Source:
    given = {"annotators": PEOPLE, "drop": "truth"} | more
    if given.get("clean_labels"):
        del given["drop"]
    return load_own(Data.from_dataframe(frame, **given), progress=False)


def at(source: Source, level: str, **more: object) -> NoisyDataset:
    return make_noisy(source, parse_noise_level(level), **more)


def votes_of(source: Source) -> np.ndarray:
    return source.own.annotations.votes


def test_majority_soft_and_single_labels_are_those_of_the_votes():
    source = load(annotated())
    votes, made = votes_of(source), {level: at(source, level) for level in LEVELS}
    counts = np.stack([(votes == k).sum(axis=1) for k in range(3)], axis=1)
    assert source.info.default_levels == ("majority",)
    assert source.own.class_names == ("cat", "dog", "owl")
    majority = made["majority"].noisy_labels
    rows = np.arange(len(votes))
    np.testing.assert_array_equal(counts[rows, majority], counts.max(axis=1))
    assert made["majority"].soft_labels is None
    np.testing.assert_allclose(made["soft"].soft_labels, counts / counts.sum(axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(made["soft"].noisy_labels, majority)
    single = made["annotator:a"]
    held = np.concatenate([single.train_indices, single.val_indices])
    np.testing.assert_array_equal(np.sort(held), np.flatnonzero(votes[:, 0] != GAP))
    np.testing.assert_array_equal(single.noisy_labels[held], votes[held, 0])
    assert len({one.fingerprint for one in made.values()}) == 4
    assert all(one.noise_rate is None for one in made.values())


def test_levels_have_the_same_splits_where_they_hold_the_same_items():
    source = load(annotated(gaps=0.0))
    first, *others = (at(source, level, train_size=150) for level in LEVELS)
    for other in others:
        np.testing.assert_array_equal(first.train_indices, other.train_indices)
        np.testing.assert_array_equal(first.val_indices, other.val_indices)
    source = load(annotated())
    majority, single = at(source, "majority"), at(source, "annotator:b")
    assert set(single.train_indices) < set(majority.train_indices)
    assert set(single.val_indices) < set(majority.val_indices)


def test_the_noise_is_known_by_clean_labels_alone():
    source = load(annotated(2_000), clean_labels="truth")
    clean, made = source.own.clean_labels, {level: at(source, level) for level in LEVELS}
    for level in ("majority", "dawid-skene"):
        assert made[level].noise_rate == np.mean(made[level].noisy_labels != clean)
    given = votes_of(source)[:, 0] != GAP
    assert made["annotator:a"].noise_rate == np.mean(votes_of(source)[given, 0] != clean[given])
    assert made["annotator:a"].noise_rate == pytest.approx(0.1, abs=0.02)
    soft = made["soft"].soft_labels[np.arange(len(clean)), clean]
    assert made["soft"].noise_rate == pytest.approx(1 - soft.mean())
    assert made["dawid-skene"].noise_rate < made["majority"].noise_rate < made["soft"].noise_rate


def test_content_decides_whatever_the_order_of_rows_and_annotators_and_the_container(tmp_path):
    frame = annotated(200)
    source = load(frame)
    shuffled = frame.sample(frac=1, random_state=3)
    shuffled.to_csv(tmp_path / "t.csv", index=False)
    shuffled.to_parquet(tmp_path / "t.parquet")
    others = [
        load(shuffled),
        load(frame, annotators=("c", "a", "b")),
        *(load_own(Data.from_table(tmp_path / name, annotators=list(PEOPLE), drop="truth"), progress=False)
          for name in ("t.csv", "t.parquet")),
    ]  # fmt: skip
    for other in others:
        assert other.fingerprint == source.fingerprint
        np.testing.assert_array_equal(other.labels, source.labels)
        for level in ("soft", "annotator:b"):
            assert at(other, level).fingerprint == at(source, level).fingerprint
    row = int(frame.index[frame[["a", "b", "c"]].notna().all(axis=1)][0])
    changed = frame.copy()
    changed.loc[row, "c"] = None
    assert load(changed).fingerprint != source.fingerprint
    assert load(frame.rename(columns={"c": "d"}), annotators=("a", "b", "d")).fingerprint != source.fingerprint


def test_numbers_are_classes_whatever_the_gaps_make_of_their_type():
    frame = annotated(200)
    named = load(frame)
    for name in PEOPLE:
        frame[name] = frame[name].map({"cat": 0, "dog": 1, "owl": 2})  # with gaps: 0.0, 1.0, NaN
    numbered = load(frame)
    assert numbered.own.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(votes_of(numbered), votes_of(named))


def test_classes_are_those_of_all_annotators_also_where_one_is_never_the_majority():
    frame = annotated(200, gaps=0.0)
    frame[["a", "b"]] = frame[["truth", "truth"]].to_numpy()
    frame.loc[:3, "c"] = "fox"
    source = load(frame)
    assert source.own.class_names == ("cat", "dog", "fox", "owl")
    assert "1 class is the majority's for no training item (fox)" in source.own.notes
    assert at(source, "soft").soft_labels[:, 2].max() == pytest.approx(1 / 3)


def test_items_that_nobody_labelled_are_left_out_and_counted(tmp_path):
    frame = annotated(100, gaps=0.0)
    frame.loc[:6, ["a", "b", "c"]] = None
    source = load(frame)
    assert len(source.labels) == 93
    assert "7 items of the data frame left out, which no annotator labelled" in source.own.notes
    images = pixels(40)
    more = {name: frame[name][7:47].tolist() for name in PEOPLE}
    more["a"][0] = more["b"][0] = more["c"][0] = None
    write_flat(tmp_path / "flat", images, frame["a"][7:47].to_numpy(), tmp_path / "flat.csv", **more)
    data = Data.from_folder(tmp_path / "flat", table=tmp_path / "flat.csv", annotators=PEOPLE)
    source = load_own(data, progress=False)
    assert (source.inputs.shape, source.own.notes[0]) == (
        (39, 3, 8, 8), f"1 item of {tmp_path / 'flat.csv'} left out, which no annotator labelled",
    )  # fmt: skip


def test_test_and_validation_files_have_right_labels_or_annotators_of_their_own():
    frame, checked = annotated(), annotated(60, seed=1).drop(columns=list(PEOPLE))
    bare = frame.drop(columns="truth")
    source = load(bare, clean_labels="truth", test=checked)
    assert source.own.test_clean
    assert not source.info.knows_clean
    names = np.array(source.own.class_names)
    assert sorted(names[source.test_labels]) == sorted(checked["truth"])
    val = annotated(50, seed=2).drop(columns=["b", "c"])
    source = load(bare, clean_labels="truth", val=val, val_clean=True)
    for level in LEVELS:  # clean validation labels are those of every level
        made = at(source, level)
        assert made.num_val == 50
        np.testing.assert_array_equal(made.noisy_labels[made.val_indices], source.labels[made.val_indices])
    assert (votes_of(source)[source.own.val_rows] == GAP).all()
    source = load(bare, test=annotated(60, seed=1).drop(columns="truth"), drop=())
    assert "the labels of the test file, the annotators' majority, are taken as clean" in source.own.notes
    source = load(frame, val=val.drop(columns="truth"))
    assert at(source, "annotator:a").num_val == int(val["a"].notna().sum())


def test_minus_one_is_a_gap_in_columns_of_hugging_faces_classes(tmp_path):
    names = ["cat", "dog"]
    table = image_table(pixels(40), labels_of(40), names)
    second = pa.array([-1 if i < 5 else i % 2 for i in range(40)])
    kind = {"names": names, "_type": "ClassLabel"}
    info = {"image": {"_type": "Image"}, "label": kind, "other": kind}
    table = table.append_column("other", second).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": info}})}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    source = load_own(Data.from_table(tmp_path / "x.parquet", annotators=("label", "other")), progress=False)
    assert source.own.class_names == ("cat", "dog")
    assert (votes_of(source) == GAP).sum(axis=0).tolist() == [0, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "truth"}, r"--label truth and --annotators a,b,c both name the labels; leave one of them out"),
        ({"annotators": ("a",)}, "--annotators needs at least 2 columns, got 'a'; --label is for a single one"),
        ({"annotators": ("a", "b", "a")}, "must name each column once, got a twice"),
        ({"annotators": ("a", "")}, "must be names of columns without commas or blanks around them, got ''"),
        ({"annotators": ("a", "b,c")}, "without commas or blanks around them, got 'b,c'"),
        ({"annotators": ("a", "b", "thruth")}, r"unknown column of the data frame 'thruth' \(did you mean 'truth'\?\)"),
        ({"annotators": ("a", "empty")}, "column empty of the data frame holds no label; leave it out of --annotators"),
        ({"annotators": ("a", "f0")}, "column f0 of the data frame must name classes, got the number"),
        ({"features": ("f0", "b")}, "--features names b, which tells of the label or the group"),
        ({"clean_labels": "thruth"}, r"--clean-labels: unknown column .* 'thruth' \(did you mean 'truth'\?\)"),
        (
            {"clean_labels": "right", "test": FRAME[["f0", "f1", "f2", "f3"]]},
            "--clean-labels: unknown column .* 'right'",
        ),
        ({"clean_labels": "right", "test": FRAME}, "no file has the column 'right' of --clean-labels"),
        (
            {"test": FRAME[["f0", "f1", "f2", "f3"]]},
            r"has no column of an annotator \(a, b, c\) and none of right",
        ),
    ],
)
def test_wrong_columns_are_one_line(changes, message):
    with pytest.raises(InputError, match=message) as raised:
        load_own(Data.from_dataframe(FRAME, **{"annotators": PEOPLE, "drop": ("truth", "empty")} | changes))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("annotator:x", r"unknown annotator of own-data 'x'.*valid: a, b, c"),
        ("given", "'given' is for one column of labels, and several annotators gave some; use majority"),
        ("clean", "'clean' needs clean labels"),
        ("annotator:c", "'annotator:c' needs training and validation samples, and has .* leave it out"),
    ],
)
def test_levels_that_the_annotators_do_not_give_are_one_line(level, message):
    frame = annotated(60, gaps=0.0)
    frame.loc[1:, "c"] = None  # the one label of c is on one side of the split
    source = load(frame)
    with pytest.raises(InputError, match=message) as raised:
        at(source, level)
    assert "\n" not in str(raised.value)


def test_levels_of_annotators_need_some():
    one = load_own(Data.from_dataframe(annotated(60, gaps=0.0), label="a", drop=("b", "c", "truth")), progress=False)
    with pytest.raises(
        InputError, match="'soft' is for items that several annotators have labelled; name their columns"
    ):
        at(one, "soft")
