"""Plans of a user's own data: which space, which sizes, and what a run keeps of them."""

import json
from dataclasses import fields

import numpy as np
import pytest
from own_files import features, labels_of, pixels, write_flat, write_folder
from rich.console import Console

from nls_tune import Data, InputError
from nls_tune.plan.level import cancelling_rate
from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import DATA_SETTINGS, check_search_settings
from nls_tune.report.console.search import print_plan
from nls_tune.runs.directory import RunDirectory
from nls_tune.session.beginning import begin_run
from nls_tune.session.continuing import refusals, settings_of_run, stored_settings


def plan_of(data: Data | None = None, **settings: object) -> SearchPlan:
    return make_plan(check_search_settings(**settings), 0, progress=False, data=data)


def random_arrays(number: int, *shape: int) -> Data:
    rng = np.random.default_rng(0)
    inputs = (
        rng.integers(256, size=(number, *shape), dtype=np.uint8)
        if len(shape) > 1
        else rng.normal(size=(number, *shape))
    )
    return Data.from_arrays(inputs, rng.integers(3, size=number))


@pytest.mark.parametrize(
    ("data", "space", "model", "batch_size"),
    [
        ((60, 4), "own_features", "mlp", 16),
        ((1000, 4), "own_features", "mlp", 16),
        ((3000, 4), "own_features", "mlp", 64),
        ((20_000, 4), "own_features", "mlp", 128),
        ((100, 16, 16, 3), "own_small_images", "small_cnn", 16),
        ((3000, 8, 8, 3), "own_small_images", "small_cnn", 64),
        ((100, 6, 6, 3), "own_small_images", "mlp", 16),
        ((6000, 16, 16, 3), "own_images", "fast_cnn", 128),
        ((6000, 15, 16, 3), "own_small_images", "small_cnn", 64),
    ],
)
def test_space_network_and_batch_follow_from_the_data(data, space, model, batch_size):
    plan = plan_of(random_arrays(*data))
    settings = plan.training_settings(plan.space.default())
    assert (plan.space.name, settings.model, settings.batch_size) == (space, model, batch_size)
    assert [level.level for level in plan.levels] == ["given"]
    assert plan.levels[0].noise_rate is None
    assert plan.levels[0].needs_estimate


def test_a_smaller_batch_has_smaller_steps_in_one_cycle():
    plan = plan_of(random_arrays(6000, 16, 16, 3))
    lr, settings = plan.space.space["lr"], plan.training_settings(plan.space.default())
    assert (lr.low, lr.high, lr.default, settings.warmup_lr) == (0.00375, 0.375, 0.1875, 0.1875)
    assert settings.weight_decay == pytest.approx(1.3e-3 * 8)


def test_a_part_of_the_data_gets_the_batch_of_as_few_samples():
    few, part = plan_of(random_arrays(400, 4)), plan_of(random_arrays(4000, 4), train_size=320)
    batches = [plan.training_settings(plan.space.default()).batch_size for plan in (few, part)]
    assert batches[0] == batches[1] < plan_of(random_arrays(4000, 4)).training_settings(few.space.default()).batch_size


def test_what_the_user_sets_is_not_fitted():
    data = random_arrays(6000, 16, 16, 3)
    settings = plan_of(data, overrides=("batch_size=64",)).space.settings
    assert settings({"smooth_rate": 0, "warmup_epochs": 0, "lr": 1}, 0).warmup_lr == 1.5
    plan = plan_of(data, overrides=("lr=0.01", "model=small_cnn"))
    settings = plan.training_settings(plan.space.default())
    assert (settings.lr, settings.model, settings.batch_size) == (0.01, "small_cnn", 128)
    plan = plan_of(random_arrays(60, 4), space="twonorm", overrides=("batch_size=20",))
    assert plan.space.name == "twonorm"
    assert plan_of(random_arrays(60, 4), epochs=4, num_trials=4).num_trials == 4


def test_every_field_of_data_is_a_setting_and_comes_back(tmp_path):
    assert tuple(field.name for field in fields(Data)) == DATA_SETTINGS
    write_flat(tmp_path / "flat", pixels(10), labels_of(10), tmp_path / "flat.csv", who=range(10))
    data = Data.from_folder(
        tmp_path / "flat", table=tmp_path / "flat.csv", label="kind", image_size=8, val=0.3, test=tmp_path / "flat.csv",
        clean_labels="kind", group="who", skip_unreadable=True,
    )  # fmt: skip
    back = check_search_settings(**data.settings()).data
    assert {name: getattr(back, name) for name in DATA_SETTINGS} == {n: getattr(data, n) for n in DATA_SETTINGS}
    assert (back.name, back.is_on_disk) == ("flat", True)
    assert Data.from_folder(tmp_path / "cifar10").name == "own-cifar10"


def test_symmetric_noise_on_top_of_known_noise_has_the_rate_of_both():
    data = Data.from_dataframe(features(500), label="answer", clean_labels="truth")
    given, more = plan_of(data, noise=("given", "symmetric:0.2")).levels
    assert given.noise_rate < more.noise_rate
    assert more.noise_cancelling_rate == pytest.approx(-2 * more.noise_rate / (1 - 2 * more.noise_rate))
    assert cancelling_rate(more.dataset) == more.noise_cancelling_rate  # what the rows of its trials say


# A run


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "photos", pixels(40), labels_of(40))


@pytest.mark.parametrize("val_clean", [False, True])
def test_clean_validation_labels_can_choose_whatever_the_noise(val_clean, capsys):
    data = Data.from_dataframe(
        features(300), label="answer", clean_labels="truth", val=features(50, seed=1), val_clean=val_clean
    )
    plan = plan_of(data, noise=("symmetric:0.7",))
    assert any("noisy validation cannot choose" in note for note in plan.notes) is not val_clean
    print_plan(plan, 1, Console(width=200))
    assert f"50 validation ({'clean' if val_clean else 'noisy'} labels)" in capsys.readouterr().out


def test_a_run_goes_on_with_the_same_content_only(folder, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    plan = plan_of(images=folder)
    content = begin_run(plan, run)
    assert content.data.class_names == ["cat", "dog"]
    assert any("without test samples" in note for note in content.data.notes)
    assert json.loads((run.path / "preprocessing.json").read_text())["shape"] == [3, 8, 8]
    assert not set(content.identity.settings) & set(DATA_SETTINGS)
    assert refusals(content, plan_of(Data.from_arrays(pixels(40), labels_of(40)))) == []
    (line,) = refusals(content, plan_of(Data.from_arrays(pixels(40, seed=1), labels_of(40))))
    assert line.startswith("the data, their labels or the split are others (fingerprints.given: ")
    with pytest.raises(
        InputError, match=r"other settings: the data, .* others .*; noise_seed: 0 -> 1|settings\.noise_seed"
    ):
        begin_run(plan_of(Data.from_arrays(pixels(40, seed=1), labels_of(40)), noise_seed=1), run)


def test_a_run_knows_where_its_data_are(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(tmp_path / "run")
    run.create()
    settings = check_search_settings(images="photos", test="0.2", epochs=3)
    content = begin_run(make_plan(settings, 0, progress=False), run)

    def keep(**facts: object) -> None:
        content.sessions = [type(content).model_fields["sessions"].annotation.__args__[0].model_validate(facts)]
        run.write_json(content)

    keep(**stored_settings(settings))
    found = settings_of_run(run, {})
    assert (str(found.images), found.test, found.epochs, found.data.test) == ("photos", "0.2", 3, 0.2)
    moved = settings_of_run(run, {"arrays": tmp_path / "x.npz"})
    assert (moved.images, moved.arrays) == (None, tmp_path / "x.npz")
    keep(**stored_settings(check_search_settings(), in_memory=True))
    with pytest.raises(InputError, match=r"given in memory, from Python: call run_search again"):
        settings_of_run(run, {})
