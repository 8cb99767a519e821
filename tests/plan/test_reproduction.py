"""Tables are YAML files that name searches, and every mistake in one is said in a line."""

from pathlib import Path

import pytest

from nls_tune.datasets.registry import check_level, dataset_info
from nls_tune.errors import InputError
from nls_tune.noise import parse_noise_level
from nls_tune.plan.reproduction import load_table, shipped_tables
from nls_tune.plan.space import load_plan_space
from nls_tune.spaces.reading import load_space


def test_the_tables_of_the_package():
    assert shipped_tables() == ["cifar-n", "cifar10n-small", "digits", "generated", "paper", "symmetric"]


@pytest.mark.parametrize("name", shipped_tables())
def test_every_row_names_data_a_level_and_a_space_that_exist(name):
    table = load_table(name)
    for row in table.rows:
        settings = table.search_of(row, Path("out"), {})
        info = dataset_info(settings.dataset)
        check_level(info, parse_noise_level(settings.noise[0]))
        preset = None if settings.preset == "auto" else settings.preset
        load_space(info.default_space, preset=preset, methods=settings.methods)
        assert settings.confirm_seeds >= 5
    for figures in table.published:
        assert figures.source
        assert all(50 < value < 100 for value in figures.values.values())


def test_rows_come_in_the_order_of_the_table():
    table = load_table("digits")
    assert table.named(()) == tuple(table.rows)
    assert table.named(["digits-pairflip-0.3", "digits-symmetric-0.2"]) == (
        "digits-symmetric-0.2",
        "digits-pairflip-0.3",
    )


def test_changes_go_before_the_settings_of_table_and_row(tmp_path):
    (tmp_path / "t.yaml").write_text(
        "title: t\nsettings: {epochs: 4, num_trials: 6}\n"
        "rows:\n  a: {dataset: digits, noise: clean, settings: {epochs: 5}}\n"
    )
    table = load_table(str(tmp_path / "t.yaml"))
    assert table.search_of("a", tmp_path, {}).epochs == 5
    changed = table.search_of("a", tmp_path / "x", {"epochs": 6})
    assert (changed.epochs, changed.num_trials, changed.out) == (6, 6, tmp_path / "x")


@pytest.mark.parametrize(
    ("table", "row", "changes", "arms", "model"),
    [
        ("cifar-n", "cifar10n-worst", {"methods": ("ce", "gls")}, {"ce": 2, "positive": 1, "negative": 1}, "fast_cnn"),
        ("cifar-n", "cifar10n-worst", {"overrides": ("arms.gce=0",)}, {"ce": 1, "gce": 0, "elr": 1}, "fast_cnn"),
        ("digits", "digits-pairflip-0.3", {"overrides": ("model=mlp",)}, {}, "mlp"),
    ],
)
def test_what_the_user_says_replaces_what_the_table_says(table, row, changes, arms, model):
    search = load_table(table).search_of(row, Path("out"), changes)
    space = load_plan_space(search, None if search.preset == "auto" else search.preset)
    assert {arm: space.arms[arm] for arm in arms} == arms
    assert space.settings(space.default(), 0).model == model


def test_changes_of_the_space_do_not_undo_those_of_the_table():
    search = load_table("digits").search_of("digits-pairflip-0.3", Path("out"), {"overrides": ("lr.low=0.001",)})
    assert search.overrides == ("model=small_cnn", "lr.low=0.001")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: x", "rows: Field required"),
        ("title: x\nrows: {}", "rows: Dictionary should have at least 1 item"),
        ("title: x\nrows: {a/b: {dataset: digits, noise: clean}}", "pattern"),
        ("title: x\nrows: {../b: {dataset: digits, noise: clean}}", "pattern"),
        ("title: x\nrows: {a: {dataset: digits}}", "noise: Field required"),
        ("title: x\nrows: {a: {dataset: digits, noise: clean, epochs: 3}}", "epochs"),
        ("title: x\nsettings: {epochz: 3}\nrows: {a: {dataset: digits, noise: clean}}", "did you mean 'epochs'"),
        ("title: x\nsettings: {epochs: -3}\nrows: {a: {dataset: digits, noise: clean}}", "--epochs"),
        (
            "title: x\nrows: {a: {dataset: digits, noise: clean}}\npublished: [{what: w, source: s, values: {b: 1}}]",
            "need a row, 'b' is none",
        ),
        (
            "title: x\nrows: {a: {dataset: digits, noise: clean}}\npublished: [{what: w, source: s, values: {a: 101}}]",
            "less than or equal to 100",
        ),
        ("title: x\ntitle: y\nrows: {a: {dataset: digits, noise: clean}}", "twice"),
        ("[", "not valid"),
    ],
)
def test_what_is_wrong_is_said(text, message, tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="is not valid: ") as caught:
        load_table(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_tables_and_rows():
    with pytest.raises(InputError, match=r"unknown table 'cifar' .*cifar-n"):
        load_table("cifar")
    with pytest.raises(InputError, match="cannot be read"):
        load_table("nowhere.yaml")
    with pytest.raises(InputError, match="unknown row 'x'"):
        load_table("digits").named(["x"])
