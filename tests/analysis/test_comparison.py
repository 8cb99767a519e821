from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_runs import write_fake_run

from nls_tune.analysis.analysis import analyze
from nls_tune.analysis.comparison import compare
from nls_tune.runs import load_runs
from nls_tune.runs.run_json import RunIdentity
from nls_tune.runs.schemas import unpack_correct

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    first = write_fake_run(folder / "first", trials=24, confirm_seeds=3, seed=1)
    second = write_fake_run(folder / "second", levels=("symmetric:0.4", "clean"), trials=12, confirm_seeds=0, seed=2)
    return load_runs([first, second])


def test_levels_hold_the_verdict_of_each_run(runs):
    analysis = analyze(runs)
    found = analysis.comparison
    assert found == compare(runs)
    assert found.runs == ("first", "second")
    assert [level.noise_level for level in found.levels] == ["symmetric:0.2", "symmetric:0.4", "clean"]
    assert [[run.run for run in level.runs] for level in found.levels] == [["first"], ["first", "second"], ["second"]]
    for level in found.levels:
        for at in level.runs:
            one = next(r for r in analysis.runs if r.run.name == at.run)
            search = one.run.trials.query("stage == 'search' and noise_level == @level.noise_level")
            verdict = next(v for v in one.verdicts if v.noise_level == level.noise_level)
            assert (at.num_trials, at.train_seconds) == (len(search), pytest.approx(search["train_seconds"].sum()))
            assert (at.verdict, at.difference) == (verdict, verdict.difference)
            row = search[search["trial_id"] == verdict.use.trial_id].iloc[0]
            assert at.val_accuracy == row["best_val_accuracy"]
            assert at.test_accuracy_at_best == row["test_accuracy_at_best"]
            assert (at.difference is None) == (at.run == "second")


def test_the_same_samples_are_paired_and_others_are_not(runs):
    first, second = (at for at in compare(runs).levels[1].runs)
    assert first.against_first is None
    trials = [run.trials.set_index("trial_id") for run in runs]
    ids = [one.verdicts[i].use.trial_id for one, i in zip(analyze(runs).runs, (1, 0), strict=True)]
    a, b = (
        unpack_correct(table.loc[trial, "test_correct_at_best"], 800).astype(float)
        for table, trial in zip(trials, ids, strict=True)
    )
    assert second.against_first.difference == pytest.approx(np.mean(b - a))
    assert second.against_first.standard_error == pytest.approx(np.std(b - a) / np.sqrt(800))
    identity = runs[1].content.identity
    for prints in ({**identity.fingerprints, "symmetric:0.4": "another"}, {}):
        changed = identity.model_copy(update={"fingerprints": prints})
        other = replace(runs[1], content=runs[1].content.model_copy(update={"identity": changed}))
        assert compare([runs[0], other]).levels[1].runs[1].against_first is None


def test_differences_are_the_settings_that_differ(runs):
    found = dict(compare(runs).differences)
    assert found["noise"] == (["symmetric:0.2", "symmetric:0.4"], ["symmetric:0.4", "clean"])
    assert found["seed"] == (1, 2)
    assert found["space.budget.trials"] == (24, 12)
    assert not any("fingerprint" in name for name in found)
    assert compare([runs[0], replace(runs[0], name="copy")]).differences == ()
    bare = replace(runs[1], content=runs[1].content.model_copy(update={"identity": RunIdentity()}))
    assert dict(compare([runs[0], bare]).differences)["dataset"] == ("twonorm", None)
    with pytest.raises(ValueError, match="at least two runs, got 1"):
        compare(runs[:1])
    assert analyze(runs[:1]).comparison is None


def test_a_run_without_results_is_there_and_empty(runs):
    empty = replace(runs[1], trials=runs[1].trials.iloc[:0], name="empty")
    for order in ([runs[0], empty], [empty, runs[0]]):
        found = {at.run: at for at in next(x for x in compare(order).levels if x.noise_level == "symmetric:0.4").runs}
        assert (found["empty"].num_trials, found["empty"].verdict, found["empty"].against_first) == (0, None, None)
        assert found["first"].against_first is None
