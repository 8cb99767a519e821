"""What the search's command line shows: its help, its version, and the plan for another machine."""

import re

import pytest
from fake_runs import write_raw
from trial_rows import trial_row

from nls_tune._version import __version__
from nls_tune.cli.exit import run_app
from nls_tune.cli.flags import settings_of_flags
from nls_tune.cli.main import app as nls_tune
from nls_tune.cli.search import app as search
from nls_tune.datasets import DATASETS
from nls_tune.plan.flag import PANELS
from nls_tune.plan.settings import SearchSettings, flag_name, flags_of_settings
from nls_tune.runs.directory import RunDirectory


@pytest.fixture
def said(capsys, monkeypatch):
    """Run a command line and return what it prints, in one line of text without the frames of panels."""
    monkeypatch.setenv("TERMINAL_WIDTH", "100")

    def check(app, *arguments: str) -> str:
        assert run_app(app, arguments) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return " ".join(re.sub("[│╭╮╰╯]", " ", out).split())

    return check


class TestHelp:
    def test_every_setting_stands_in_its_panel_and_the_panels_in_their_order(self, said):
        text = said(search, "--help")
        places = [text.index(f"─ {panel} ─") for panel in ("Options", *PANELS)]
        assert places == sorted(places)
        for place, panel, end in zip(places[1:], PANELS, [*places[2:], len(text)], strict=True):
            for name, (_, flag) in flags_of_settings().items():
                assert (f" {flag_name(name, flag)} " in text[place:end]) == (flag.panel == panel), name

    def test_it_begins_with_an_example_and_names_datasets_and_noise_levels(self, said):
        text = said(search, "--help")
        example = "python -m nls_tune.search --dataset cifar10n --noise human:worst"
        assert text.index(example) < text.index("─ Options")
        assert f"Name of the dataset: {', '.join(DATASETS)}." in text
        for level in ("clean", "symmetric:0.4", "matrix:FILE", "human:worst", "human:noisy"):
            assert level in text

    def test_the_example_is_a_command_that_works(self, said):
        assert "human:worst" in said(search, "--dataset", "cifar10n", "--noise", "human:worst", "--help")


@pytest.mark.parametrize(
    ("app", "arguments"), [(search, ["--version"]), (nls_tune, ["--version"]), (nls_tune, ["search", "--version"])]
)
def test_the_version_is_printed_and_nothing_starts(said, app, arguments):
    assert said(app, *arguments) == f"nls_tune {__version__}"


class TestAnotherMachine:
    def test_its_gpus_decide_preset_and_slots_and_cpus_do_not_run_short(self, said, monkeypatch):
        monkeypatch.setattr("nls_tune.tune.cluster.local_resources", lambda: {"CPU": 2, "GPU": 0})
        text = said(search, "--dry-run", "--assume-gpus", "8", "--trials-per-gpu", "2", "--cpus-per-trial", "4")
        assert "no preset (8 GPUs assumed, the space has no preset gpu)" in text
        assert "16 at a time" in text
        assert "Note: --trials-per-gpu" not in text
        text = said(search, "--dry-run", "--assume-gpus", "0")
        assert "no preset (no GPU assumed, the space has no preset cpu)" in text
        assert "2 at a time" in text

    def test_without_a_measured_epoch_no_time_is_said(self, said, tmp_path):
        arguments = (
            "--dataset",
            "twonorm",
            "--noise",
            "clean,symmetric:0.4",
            "--num-trials",
            "8",
            "--epochs",
            "10",
            "--confirm-seeds",
            "3",
        )
        text = said(search, *arguments, "--dry-run", "--assume-gpus", "1")
        # Two levels with three arms each, and CE at the defaults.
        assert "Epochs to train, at most: 160 in the search, 240 in the confirmation" in text
        assert "How long they take is not known: no epoch of this run was measured yet" in text
        text = said(search, *arguments[:-1], "0", "--dry-run")
        assert "Epochs to train, at most: 160 in the search No" not in text
        assert "in the confirmation" not in text

    def test_a_run_that_has_measured_epochs_gives_the_time(self, said, tmp_path):
        run = RunDirectory(tmp_path / "run")
        run.create()
        write_raw(run.path, plan=[{"noise_level": "clean", "num_train": 500}])
        run.write_trial(trial_row(epochs=10, epochs_reused=4, train_seconds=12.0, device="old"))
        for minute in (1, 2):
            settings = {"smooth_rate": -minute}
            run.write_trial(trial_row(settings, minute=minute, epochs=10, epochs_reused=2, train_seconds=12.0 * minute))
        run.write_trial(trial_row({"model": "cnn9"}, minute=3, train_seconds=1000.0))
        arguments = (
            "--dataset", "twonorm",
            "--noise", "clean", "--num-trials", "10", "--epochs", "20", "--train-size", "500", "--confirm-seeds", "1",
            "--out", str(run.path), "--dry-run", "--assume-gpus", "4",
        )  # fmt: skip
        # 10 and 4 trials on 4 GPUs, each of 20 epochs, of 36 s for 16 epochs.
        text = said(search, *arguments)
        assert "at most: 2 min 15 s in the search, 45 s in the confirmation; if an epoch takes 2.2 s, as on a" in text
        assert "at most: 1 min 0 s in the search, 45 s" in said(search, *arguments, "--time-budget", "60")
        text = said(search, *arguments, "--train-size", "501")
        assert "How long they take is not known" in text  # the run trained on other data


def test_the_defaults_of_the_help_are_those_of_the_settings(said):
    text = said(search, "--help")
    assert "By default digits" in text
    for name in ("preset", "sampler", "trials_per_gpu"):
        assert f"[default: {getattr(SearchSettings, name)}]" in text


def test_an_estimate_has_no_default_dataset(said):
    text = said(nls_tune, "estimate", "--help")
    assert "cifar100n. Needed unless the data are your own" in text
    assert "By default digits" not in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), ("freeze=True", "crop_padding=0", "flip=false", "cutout=0")),
        (("flip=true",), ("flip=true", "freeze=True", "crop_padding=0", "cutout=0")),
    ],
)
def test_freezing_turns_off_augmentation_that_is_not_asked_for(given, expected):
    settings = settings_of_flags({"freeze": True, "overrides": given})
    assert settings.overrides == expected
