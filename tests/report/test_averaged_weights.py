"""Where an average is to be used, headline, loop and tables say so; elsewhere nothing speaks of averages."""

import copy
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from analyses import make_analysis
from rich.console import Console
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.analysis import Analysis
from nls_tune.analysis.choices import Choice
from nls_tune.analysis.verdicts import findings
from nls_tune.report.console.analysis import print_analysis
from nls_tune.report.formats import levels_csv, levels_markdown
from nls_tune.report.html.tables import trials_table
from nls_tune.report.words import use_text, verdict_words
from nls_tune.training.averages import WeightAverages


def averaged(found: Analysis, readout: str = "average:0.2") -> Analysis:
    """The same analysis, whose selected trials and choices are averages."""

    def choice(one: Choice | None) -> Choice | None:
        return one and replace(one, readout=readout)

    runs = []
    for run in found.runs:
        verdicts = [replace(v, use=choice(v.use), ce=choice(v.ce), rate=choice(v.rate)) for v in run.verdicts]
        summaries = [
            replace(s, arms={a: replace(one, readout=readout) for a, one in s.arms.items()}) for s in run.summaries
        ]
        runs.append(replace(run, verdicts=tuple(verdicts), summaries=tuple(summaries)))
    return replace(found, runs=tuple(runs))


def details(found: Analysis) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_analysis(found, console, details=True)
    return console.file.getvalue()


def snippet(readout: str) -> str:
    """The loop that is printed for the first level."""
    found = averaged(make_analysis(), readout)
    words = verdict_words(found.runs[0].verdicts[0])
    assert words.snippet is not None
    return words.snippet


@pytest.mark.parametrize(
    ("readout", "said"),
    [
        ("average:0.2", ", stop after epoch 5, weights averaged over the last 20 % of the phase"),
        ("average:1", ", stop after epoch 5, weights averaged over all of the phase"),
    ],
)
def test_the_headline_says_which_weights(readout, said):
    for verdict in averaged(make_analysis(), readout).runs[0].verdicts:
        assert said in verdict_words(verdict).headline
        assert " ".join(use_text(verdict.use).split()).endswith(f", average {readout.split(':')[1]}")


def test_nothing_speaks_of_averages_where_there_is_none():
    found = make_analysis()
    for text in (details(found), levels_markdown(found)):
        assert "average" not in text.lower()
        assert "weights" not in text
    assert "averag" not in snippet("plain")
    assert set(columns(found, "use_readout")) == {"plain"}


def columns(found: Analysis, name: str) -> list[str]:
    lines = levels_csv(found).splitlines()
    return [line.split(",")[lines[0].split(",").index(name)] for line in lines[1:]]


def test_tables_have_a_column_for_the_weights():
    found = averaged(make_analysis())
    assert "weights" in details(found)
    assert "| average 0.2 |" in levels_markdown(found)
    assert "AveragedModel" in details(found)
    assert set(columns(found, "use_readout")) == {"average:0.2"}


def test_the_table_of_trials_has_one_where_a_trial_used_an_average():
    rows = [trial_row(minute=i, seed=i, readout=readout) for i, readout in enumerate(["plain", "average:0.5", None])]
    for some, expected in ((rows, ["as they are", "average 0.5", "as they are"]), (rows[::2], [])):
        table = trials_table("t", trials_frame(some), ()).table
        headings = [column.heading for column in table.columns]
        assert ("weights" in headings) == bool(expected)
        if expected:
            assert [row[headings.index("weights")] for row in table.rows] == expected


def test_the_loop_averages_as_the_search_does():
    """Both begin anew in the GLS phase; the search takes in every fourth step, and here only those are steps."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    batches = [(torch.randn(6, 3), torch.tensor([0, 1] * 3)) for _ in range(5)]
    space: dict[str, Any] = {"model": copy.deepcopy(model), "batches": batches}
    space["make_optimizer"] = lambda parameters, lr: torch.optim.SGD(parameters, lr=lr)
    seen = []

    class Kept(list):
        def __iter__(self):
            for batch in batches:
                yield batch
                seen.append(copy.deepcopy(space["model"]))

    space["batches"] = Kept()
    exec(snippet("average:0.2"), space)
    warmup = 5 * make_analysis().runs[0].verdicts[0].use.config["warmup_epochs"]
    model.load_state_dict(seen[0].state_dict())
    averages = WeightAverages(model, (0.2,))
    for network in seen[warmup:]:
        model.load_state_dict(network.state_dict())
        for _ in range(4):
            averages.update()
    for name, value in averages.models[0].state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(space["averaged"].module.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def rows_of(search: str | None, fresh: list[str | None]) -> list[dict[str, Any]]:
    """Rows of a CE and a weaker rate; without ``search`` this CE is not in the search, but a weaker one is."""
    right = {share: np.arange(4000) % 100 < share for share in (60, 70, 80)}
    test = np.arange(100) % 3 > 0
    trials = {(0.0, 0.01): (search, fresh, 80), (-1.0, 0.01): ("plain", ["plain"] * len(fresh), 70)}
    if search is None:
        trials[0.0, 0.02] = ("average:1", ["average:1"] * len(fresh), 60)
    rows = []
    for (rate, lr), (first, others, share) in trials.items():
        made = {"val_correct": right[share], "test_correct": test}
        if first is not None:
            rows.append(trial_row({"smooth_rate": rate, "lr": lr}, minute=len(rows), readout=first, **made))
        for seed, readout in enumerate(others, 1):
            given = {"smooth_rate": rate, "lr": lr, "seed": seed}
            rows.append(trial_row(given, stage="confirm", minute=len(rows), readout=readout, **made))
    return rows


@pytest.mark.parametrize(
    ("search", "fresh", "expected"),
    [
        ("average:0.2", [], "average:0.2"),
        ("average:0.2", ["plain", "plain"], "plain"),
        ("plain", ["average:0.2", "average:0.2"], "average:0.2"),
        (None, ["average:0.5", "plain", "average:0.5"], "average:0.5"),
        (None, ["average:0.5", "plain"], "plain"),
        (None, [None, None], "plain"),  # rows of version 0.1
    ],
)
def test_a_choice_has_the_readout_of_most_fresh_seeds_else_of_the_search(search, fresh, expected):
    verdict = findings(trials_frame(rows_of(search, fresh))).verdicts[0]
    assert verdict.ce is not None
    assert verdict.ce.config["lr"] == 0.01
    assert verdict.ce.readout == expected


def test_a_cycle_is_named_and_is_not_taken_for_rising():
    many = np.arange(4000) % 10 > 0
    rising = trials_frame([trial_row({"smooth_rate": 0.0, "schedule": "one_cycle"}, val_correct=many)])

    def epochs_of(trial_ids):
        epochs = range(1, 11)
        return pd.DataFrame(
            {"trial_id": trial_id, "epoch": e, "val_accuracy": 0.5 + 0.04 * e, "diverged": False, "lr": 0.1,
             "phase": "gls"}
            for trial_id in trial_ids for e in epochs
        )  # fmt: skip

    verdict = findings(rising, epochs_of).verdicts[0]
    assert verdict.reason != "ce_rising"
    assert "also schedule='one_cycle'" in (verdict_words(verdict).snippet or "")
    constant = trials_frame([trial_row({"smooth_rate": 0.0}, val_correct=many)])
    assert findings(constant, epochs_of).verdicts[0].reason == "ce_rising"
