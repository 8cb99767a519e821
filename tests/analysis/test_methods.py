"""Several methods at one level: one row per method, and p values corrected over all of them."""

import numpy as np
import pandas as pd
import pytest
from any_run import SPACE
from method_rows import CE, SIX, rows, searched
from test_verdicts import one
from trial_rows import trials_frame

from nls_tune.analysis.confirmation import best_of_methods, confirmations, count_claims
from nls_tune.analysis.level_summaries import level_summaries
from nls_tune.analysis.rate_curves import rate_curves
from nls_tune.report.run_tables import arms_table, confirmation_table
from nls_tune.report.words import methods_table, summary_line, verdict_table, verdict_words


def test_every_method_has_its_finding_and_the_best_is_used():
    found = one(rows())
    assert [(m.method, m.finding) for m in found.methods] == [
        ("gls", "no_proven_difference"), ("gce", "better"), ("elr", "no_proven_difference"),
    ]  # fmt: skip
    assert (found.finding, found.use.arm, found.use.config["gce_q"]) == ("better", "gce", 0.5)
    # Validation prefers CE to ELR: nothing is claimed of it, though it is much worse.
    assert [m.sign_flip_p is None for m in found.methods] == [False, False, True]
    assert found.methods[2].difference.mean == pytest.approx(-SIX.mean())


def with_gains(**gains):
    """The rows, with other gains of some arms over cross-entropy."""
    return [
        {**row, "test_accuracy_at_best": float(CE[row["seed"] - 1] + gains[row["arm"]][row["seed"] - 1])}
        if row["stage"] == "confirm" and row["arm"] in gains
        else row
        for row in rows()
    ]


def test_a_proven_method_is_used_where_the_first_on_validation_is_not_proven():
    found = one(with_gains(gce=SIX - 0.023, negative=SIX))
    assert [(m.method, m.finding) for m in found.methods][:2] == [("gls", "better"), ("gce", "no_proven_difference")]
    assert (found.finding, found.use.arm, found.rate.arm) == ("better", "negative", "negative")
    assert summary_line([found]).startswith("Another loss is proven better than cross-entropy at 1 of 1 noise level")


def test_each_method_leads_by_more_than_cross_entropy_still_gains():
    """Cross-entropy gains 2 points in its last quarter; a lead of 5 points is more than twice that, one of 3 is not."""
    curve = [0.6, 0.65, 0.7, 0.7, 0.73, 0.73, 0.75, 0.75]
    both = with_gains(gce=SIX, negative=SIX)
    assert [m.finding for m in one(both).methods][:2] == ["better", "better"]

    def epochs_of(ids):
        return pd.DataFrame(
            {"trial_id": trial, "epoch": epoch, "val_accuracy": value, "lr": 0.1, "phase": "gls", "diverged": False}
            for trial in ids
            for epoch, value in enumerate(curve, start=1)
        )

    found = one(both, epochs_of=epochs_of)
    assert (found.finding, found.use.arm) == ("better", "gce")
    assert [(m.finding, m.difference is None) for m in found.methods][:2] == [
        ("not_trained_enough", True), ("better", False),
    ]  # fmt: skip


def test_without_cross_entropy_among_the_methods_the_best_is_used_unconfirmed():
    """The range of the rate includes 0 all the same."""
    found = one(rows(("negative", "gce")), space=SPACE, planned={"symmetric:0.4": {"negative": 1, "gce": 1}})
    assert (found.finding, found.reason, found.use.arm) == ("not_confirmed", "no_ce", "gce")
    assert "give ce a share in arms or add it to --methods" in verdict_words(found).headline


def test_p_values_are_corrected_over_the_methods():
    alone, among = one(rows(("ce", "gce"))), one(rows())
    assert alone.sign_flip_p == pytest.approx(2 / 2**6)
    assert among.sign_flip_p == pytest.approx(3 * 2 / 2**6)  # Holm: the smallest of three
    found = confirmations(trials_frame(rows()))
    assert count_claims(found) == 3
    assert [found[0].configurations[i].arm for i in best_of_methods(found[0]).values()] == ["negative", "gce", "elr"]


def test_without_fresh_seeds_no_method_is_confirmed():
    found = one(searched())
    assert {m.finding for m in found.methods} == {"not_confirmed"}
    assert all(m.difference is None for m in found.methods)
    assert found.rate.arm == "gce"


def test_a_search_of_rates_alone_has_no_methods():
    assert one(rows(("ce", "negative"))).methods == ()


def test_configurations_hold_the_settings_of_their_own_loss():
    (summary,) = level_summaries(trials_frame(rows()))
    assert list(summary.arms) == ["ce", "negative", "gce", "elr"]
    assert "gce_q" in summary.arms["gce"].config
    assert not {"gce_q"} & set(summary.arms["ce"].config) | {"gce_q"} & set(summary.arms["elr"].config)


def test_curves_over_rates_leave_other_losses_out():
    (curve,) = rate_curves(trials_frame(rows()))
    assert {point.arm for point in curve.points} == {"ce", "negative"}


def test_what_is_said_names_the_loss():
    found = one(rows())
    said = verdict_words(found)
    assert said.headline.startswith("use gce (warm-up 2, lr 0.01, gce_q 0.5)")
    assert "make_loss('gce', gce_q=0.5)" in said.snippet
    assert summary_line([found]).startswith("Another loss is proven better")
    assert "best other loss to CE" in [column.heading for column in verdict_table([found]).columns]
    assert [row[1] for row in methods_table([found]).rows] == ["gls", "gce", "elr"]
    assert [row[1] for row in arms_table(level_summaries(trials_frame(rows()))).rows] == [
        "ce",
        "negative",
        "gce",
        "elr",
    ]
    assert len(confirmation_table(confirmations(trials_frame(rows()))).rows) == 4


def test_the_program_of_a_loss_that_remembers_runs():
    import torch

    better = {"elr": 0.8, "ce": 0.75}
    frames = [
        {**row, "best_val_accuracy": better[row["arm"]], "test_accuracy_at_best": 0.9 + 0.01 * (row["arm"] == "elr")}
        for row in rows(("ce", "elr"))
    ]
    text = verdict_words(one([r for r in frames if r["stage"] == "search"] + [
        {**row, "test_accuracy_at_best": float(CE[row["seed"] - 1] + (row["arm"] == "elr") * SIX[row["seed"] - 1])}
        for row in frames if row["stage"] == "confirm"
    ])).snippet  # fmt: skip
    model = torch.nn.Linear(4, 3)
    batches = [(torch.randn(5, 4), torch.randint(0, 3, (5,)), torch.arange(5))]
    names = {
        "model": model, "batches": batches, "K": 3, "N": 5,
        "make_optimizer": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
    }  # fmt: skip
    before = model.weight.detach().clone()
    exec(compile(text, "snippet", "exec"), names)
    assert not np.allclose(before, model.weight.detach())
