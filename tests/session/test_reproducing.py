"""Tables are filled row by row, in pieces, and say what they do not know."""

import dataclasses
import json
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
from fake_runs import write_fake_run, write_raw

from nls_tune.analysis.method_results import table_rows
from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.errors import InputError
from nls_tune.runs.reading import load_trials
from nls_tune.session import reproducing
from nls_tune.session.conclusion import SearchResult
from nls_tune.session.reproducing import reproduce

TABLE = """
title: Two levels
settings: {num_trials: 12, confirm_seeds: 4}
rows:
  low: {dataset: twonorm, noise: "symmetric:0.2"}
  high: {dataset: twonorm, noise: "symmetric:0.4", settings: {num_trials: 16}}
published:
  - {what: Bayes optimum, source: Breiman 1996, values: {low: 97.72}}
"""


SIZES = {"num_train": 900, "num_val": 100}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(TABLE)
    return str(path)


@pytest.fixture
def searches(monkeypatch):
    """The searches that ran, each of which has left a run behind; a status in ``ends`` is that of the next one."""
    ran, ends = [], []

    def run(settings, console):
        ran.append(settings)
        status = ends.pop(0) if ends else "finished"
        if not (settings.out / "run.json").exists():
            level = str(settings.noise[0])
            write_fake_run(
                settings.out, levels=(level,), trials=settings.num_trials, confirm_seeds=settings.confirm_seeds
            )
        write_raw(settings.out, status=status, plan=[{"noise_level": str(settings.noise[0]), **SIZES}])
        return SearchResult(settings.out, status, (), (), ())

    monkeypatch.setattr(reproducing, "run_settings", run)
    return ran, ends


def test_every_row_is_a_search_of_its_own(table, searches, tmp_path):
    done = reproduce(table, out=tmp_path / "out", changes={"epochs": 20})
    low, high = searches[0]
    assert (low.dataset, low.num_trials, low.confirm_seeds, low.epochs) == ("twonorm", 12, 4, 20)
    assert (high.num_trials, high.out) == (16, tmp_path / "out" / "high")
    assert done.status == "finished"
    assert all(row.finished for row in done.rows)
    for row in done.rows:
        assert [found.arm for found in row.result.methods] == ["ce", "positive", "negative"]
        assert row.result.methods[0].difference is None
        assert all(found.test.num_seeds == 4 for found in row.result.methods)
        assert row.minutes > 0


def test_files_say_what_was_measured_and_what_was_published(table, searches, tmp_path):
    done = reproduce(table, out=tmp_path / "out", changes={"overrides": ("lr.low=0.001",), "epochs": 20})
    text = (tmp_path / "out" / "table.md").read_text()
    ce = done.rows[0].result.methods[0].test
    assert f"| low | 97.72 | {100 * ce.mean:.2f} ± {100 * ce.standard_deviation:.2f} |" in text
    assert "| high | – |" in text
    assert "- Published, Bayes optimum: Breiman 1996" in text
    assert "not those of the table: --set lr.low=0.001 --epochs 20." in text
    assert "What fills the rest" not in text
    evidence = json.loads((tmp_path / "out" / "table.json").read_text())
    assert evidence["versions"]["torch"]
    assert evidence["rows"][0]["result"]["methods"][0]["test"]["mean"] == ce.mean
    latex = (tmp_path / "out" / "table.tex").read_text()
    assert latex.count(r"\begin{tabular}") == 2
    assert "lr.low" not in latex


def test_evidence_is_json_for_any_parser_where_one_seed_has_no_error(table, searches, tmp_path):
    reproduce(table, out=tmp_path / "out", changes={"confirm_seeds": 1})
    text = (tmp_path / "out" / "table.json").read_text()
    evidence = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    test = evidence["rows"][0]["result"]["methods"][0]["test"]
    assert (test["num_seeds"], test["standard_deviation"], test["low"]) == (1, None, None)


def test_where_it_is_filled_is_no_setting_of_the_table(table, searches, tmp_path):
    reproduce(table, out=tmp_path / "out", changes={"data_dir": tmp_path, "max_concurrent": 1, "address": "auto"})
    assert searches[0][0].max_concurrent == 1
    assert "not those of the table" not in (tmp_path / "out" / "table.md").read_text()
    assert json.loads((tmp_path / "out" / "table.json").read_text())["changes"] == {}


def test_what_one_row_proves_alone_is_corrected_over_all_rows(tmp_path):
    runs = []
    for level in ("symmetric:0.1", "symmetric:0.2", "symmetric:0.3"):
        write_fake_run(tmp_path / level, levels=(level,), trials=12, confirm_seeds=8)
        run = load_trials(tmp_path / level)
        rows = run.trials.copy()
        confirmed = rows["stage"] == "confirm"
        ce = rows[confirmed & (rows["arm"] == "ce")].groupby("seed")["test_accuracy_at_best"].max()
        gains = 0.004 + 0.004 * np.linspace(-1.5, 1.5, 8) / 1.05  # t = 2.75, p = 0.03
        positive = confirmed & (rows["arm"] == "positive")
        rows.loc[positive, "best_val_accuracy"] = 0.99
        rows.loc[positive, "test_accuracy_at_best"] = rows["seed"].map(ce + gains)
        rows.loc[confirmed & (rows["arm"] == "ce"), "test_accuracy_at_best"] = rows["seed"].map(ce)
        runs.append(dataclasses.replace(run, trials=rows))
    alone, together = table_rows(runs[:1]), table_rows(runs)
    assert [row.finding for row in alone] == ["better"]
    assert [found.proven for found in alone[0].methods] == [False, True, False]
    assert [row.finding for row in together] == ["no_proven_difference"] * 3
    assert not any(found.proven for row in together for found in row.methods)


def test_a_row_whose_search_went_on_shows_the_configuration_that_is_best_now(tmp_path):
    write_fake_run(tmp_path / "run", levels=("symmetric:0.2",), trials=12, confirm_seeds=4)
    run = load_trials(tmp_path / "run")
    first = run.trials[(run.trials["stage"] == "confirm") & (run.trials["arm"] == "negative")]
    better = first.assign(
        lr=0.5, trial_id=[f"later{i}" for i in range(len(first))], best_val_accuracy=first["best_val_accuracy"] + 0.01
    )
    both = dataclasses.replace(run, trials=pd.concat([run.trials, better], ignore_index=True))
    (before,), (after,) = table_rows([run]), table_rows([both])
    assert [found.arm for found in after.methods] == [found.arm for found in before.methods]
    (found,) = [found for found in after.methods if found.arm == "negative"]
    assert found.config["lr"] == 0.5


def test_the_arithmetic_counts_every_epoch_that_was_trained(table, searches, tmp_path):
    done = reproduce(table, out=tmp_path / "out", rows=["low"])
    from nls_tune.runs.reading import load_trials
    from nls_tune.training.arithmetic import forward_flops

    run = load_trials(tmp_path / "out" / "low")
    model = run.trials["config_model"].iloc[0]
    epochs = (run.trials["epochs"] - run.trials["epochs_reused"]).sum()
    samples = 3 * 900 + 100 + run.trials["num_test"].iloc[0]
    flops = forward_flops(model, num_classes=2, input_shape=(20,))
    assert flops == 2 * sum(a * b for a, b in [(20, 128), (128, 128), (128, 2)])
    assert done.rows[0].pflop == pytest.approx(flops * samples * epochs / 1e15)


def test_rows_that_were_not_asked_for_are_empty_and_say_their_command(table, searches, tmp_path):
    done = reproduce(table, out=tmp_path / "out", rows=["high"], changes={"seed": 3})
    assert [settings.out.name for settings in searches[0]] == ["high"]
    low, high = done.rows
    assert (low.result, low.finished, high.finished) == (None, False, True)
    assert low.command == f"nls-tune reproduce {table} --rows low --seed 3 --out {tmp_path / 'out'}"
    assert f"- low: `{low.command}`" in (tmp_path / "out" / "table.md").read_text()
    assert "| low | 97.72 | – | – | – | not measured | – | – |" in (tmp_path / "out" / "table.md").read_text()


def test_an_interruption_ends_it_and_the_same_call_goes_on(table, searches, tmp_path):
    ran, ends = searches
    ends.append("interrupted")
    first = reproduce(table, out=tmp_path / "out")
    assert (first.status, len(ran)) == ("interrupted", 1)
    assert [row.finished for row in first.rows] == [False, False]
    assert "not finished" in (tmp_path / "out" / "table.md").read_text()
    second = reproduce(table, out=tmp_path / "out")
    assert (second.status, [row.finished for row in second.rows]) == ("finished", [True, True])


def test_what_is_trained_on_all_labels_stands_beside_what_is_proven_and_does_not_replace_it(
    table, searches, tmp_path, monkeypatch
):
    reproduce(table, out=tmp_path / "out")

    def with_all_labels(path):
        run = load_trials(path)
        fresh = run.trials[(run.trials["stage"] == "confirm") & (run.trials["arm"] != "positive")]
        names = {"stage": "confirm_all", "trial_id": "all" + fresh["trial_id"], "last_test_accuracy": 0.5}
        trials = pd.concat([run.trials, fresh.assign(**names)], ignore_index=True)
        return dataclasses.replace(run, trials=trials)

    before = reproduce(table, out=tmp_path / "out").rows[0].result.methods
    assert "all labels" not in (tmp_path / "out" / "table.md").read_text().lower()
    monkeypatch.setattr(reproducing, "load_trials", with_all_labels)
    found = reproduce(table, out=tmp_path / "out").rows[0].result.methods
    assert [(one.test, one.difference, one.proven) for one in found] == [
        (one.test, one.difference, one.proven) for one in before
    ]
    assert [one.on_all_labels and one.on_all_labels.test.mean for one in found] == [0.5, None, 0.5]
    text = (tmp_path / "out" / "table.md").read_text()
    assert "cross-entropy, all labels |" in text
    assert "| on all labels, points |" in text


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background of a script"])
def ctrl_c(request):
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


def test_when_the_time_is_up_the_search_is_interrupted(table, searches, tmp_path, monkeypatch, ctrl_c):
    def endless(settings, console):
        time.sleep(60)
        raise AssertionError("not interrupted")

    monkeypatch.setattr(reproducing, "run_settings", endless)
    assert reproduce(table, out=tmp_path / "out", minutes=0.005).status == "time is up"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_between_two_searches_leaves_the_table(table, searches, tmp_path, monkeypatch, number):
    write = reproducing.write_table
    calls = []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 1:
            os.kill(os.getpid(), number)
            time.sleep(5)
        return write(*given)

    monkeypatch.setattr(reproducing, "write_table", interrupted)
    done = reproduce(table, out=tmp_path / "out")
    assert (done.status, done.rows[0].finished) == ("interrupted", True)
    assert (tmp_path / "out" / "table.md").exists()


def test_time_that_is_left_interrupts_nothing_afterwards(table, searches, tmp_path):
    reproduce(table, out=tmp_path / "out", minutes=0.02)
    time.sleep(1.5)


@pytest.mark.parametrize("minutes", [0, -1.0, float("inf"), float("nan")])
def test_minutes_are_positive(table, tmp_path, minutes):
    with pytest.raises(InputError, match="--minutes must be above 0"):
        reproduce(table, out=tmp_path, minutes=minutes)


def test_a_file_in_the_way_is_said(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out must be a folder"):
        reproduce(table, out=tmp_path / "file")


def test_what_is_reported_is_plain_data(table, searches, tmp_path):
    done = reproduce(table, out=tmp_path / "out")
    json.dumps([dataclasses.asdict(row) for row in done.rows])


def test_the_command_changes_nothing_that_was_not_given(table, searches, tmp_path, capsys):
    assert run_app(app, ["reproduce", table, "--rows", "low", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "table.json").read_text())["changes"] == {}
    assert "1 of 2 rows are not filled" in capsys.readouterr().out


def test_a_flag_at_the_default_of_a_search_replaces_what_the_table_says(table, searches, tmp_path):
    out = tmp_path / "out"
    flags = ["--rows", "low", "--preset", "auto", "--seed", "0", "--out", str(out)]
    assert run_app(app, ["reproduce", table, *flags]) == 0
    assert json.loads((out / "table.json").read_text())["changes"] == {"preset": "auto", "seed": 0}
