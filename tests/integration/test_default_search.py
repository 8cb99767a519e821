"""A search as a command: what it prints, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run_search
from watching import ARGUMENTS, LEVELS, PARTS

from nls_tune import read_epochs, read_trials
from nls_tune.analysis.verdicts import find
from nls_tune.report.formats import plain
from nls_tune.runs import load_run
from nls_tune.runs.schemas import epoch_schema, settings_of, trial_schema

pytestmark = pytest.mark.timeout(180)
STATUSES = {"completed", "stopped", "diverged"}
KINDS = [f"{reader} {part}" for reader in ("pandas", "duckdb") for part in PARTS]


@pytest.fixture(scope="module")
def out(watched_search) -> str:
    return watched_search.done.out


@pytest.fixture(scope="module")
def run(watched_search):
    return watched_search.run


@pytest.fixture(scope="module")
def trials(run) -> pd.DataFrame:
    return read_trials(run)


class TestOutput:
    def test_it_succeeds_and_says_nothing_but_its_results(self, watched_search, out, run):
        assert (watched_search.done.code, watched_search.done.err) == (0, "")
        assert f"Results: {run}" in out.splitlines()
        for word in ("ray", "Tune", "Trainable", "[I 2", "WARNING", "pid=", "\x1b", "━"):
            assert word not in out

    def test_its_process_has_not_loaded_torch(self, watched_search):
        """Half of its memory would be torch."""
        loaded = {name.partition(".")[0] for name in watched_search.modules}
        assert not loaded & {"torch", "torchvision"}
        assert {"ray", "nls_tune.session.searching", "nls_tune.tune.recorder"} <= watched_search.modules

    def test_the_plan_comes_first(self, out):
        lines = out.splitlines()
        assert lines[0] == (
            "Search of twonorm: 500 training, 4000 validation (noisy labels), 10000 test samples, 2 classes"
        )
        assert any(line.startswith("2 noise levels, 12 trials of 24 epochs; ASHA stops trials") for line in lines[:5])

    def test_every_trial_is_one_plain_line(self, out, trials):
        lines = [line for line in out.splitlines() if re.match(r"\[\d+/12\] ", line)]
        assert [line.partition("]")[0] for line in lines] == [f"[{n}/12" for n in range(1, 13)]
        for level in LEVELS:
            assert sum(f"] {level} r=" in line for line in lines) == 6
        for status in STATUSES:
            assert sum(f": {status}, " in line for line in lines) == (trials["status"] == status).sum()

    def test_the_answer_follows_the_trials_and_says_what_would_confirm_it(self, out, run):
        answer = out[out.index("[12/12]") :]
        assert "Nothing is proven yet at 2 noise levels." in answer.splitlines()
        for level in LEVELS:
            assert re.search(rf"^{level} ", answer, re.MULTILINE)
            (reason,) = re.findall(rf"^{level}: (.*)$", answer, re.MULTILINE)
            assert "--confirm-seeds 5" in reason or "--epochs" in reason
        assert f"The numbers behind it: nls-tune analyze --details {run}" in answer.splitlines()


class TestResults:
    def test_every_arm_has_its_share_of_the_trials_and_its_start_points(self, trials):
        assert len(trials) == trials["trial_id"].nunique() == 12
        assert set(trials["status"]) <= STATUSES
        assert trials["run_id"].nunique() == 1
        counts = trials.groupby(["noise_level", "arm"]).size()
        cancelling = {"symmetric:0.2": -2 / 3, "symmetric:0.4": -4.0}
        for level in LEVELS:
            # 6 trials in shares of 1/4, 1/4 and 1/2, rounded by largest remainder
            assert counts[level].to_dict() == {"ce": 2, "negative": 3, "positive": 1}
            rates = trials.loc[trials["noise_level"] == level, "smooth_rate"]
            for start in (0.0, 0.1, cancelling[level]):
                assert ((rates - start).abs() < 1e-4).any(), (level, start)

    @pytest.mark.parametrize(("name", "schema"), [("trials", trial_schema()), ("epochs", epoch_schema())])
    def test_every_part_has_the_schema_and_all_readers_read_the_same(self, run, name, schema):
        parts = sorted((run / name).iterdir())
        assert len(parts) == 13
        for part in parts:
            found = pq.read_schema(part)
            assert fields_of(found) == fields_of(schema), part
            assert found.metadata[b"nls_tune.schema_version"] == b"1"
        frame = pd.read_parquet(run / name)
        table = pq.read_table(run / name)
        assert fields_of(table.schema) == fields_of(schema)
        assert list(frame.columns) == schema.names
        described = duckdb.sql(f"describe from read_parquet('{run}/{name}/*.parquet')").fetchall()
        assert [(row[0], row[1]) for row in described] == [(f.name, duckdb_type(f.type)) for f in schema]
        counted = duckdb.sql(f"select count(*) from read_parquet('{run}/{name}/*.parquet')").fetchall()
        assert (table.num_rows, counted) == (len(frame), [(len(frame),)])
        for field in schema:
            if not field.nullable:
                assert frame[field.name].notna().all(), field.name

    def test_epochs_agree_with_trials(self, run, trials):
        epochs = read_epochs(run)
        assert len(epochs) == trials["epochs"].sum()
        for row in trials.to_dict("records"):
            curve = epochs[epochs["trial_id"] == row["trial_id"]]
            assert curve["epoch"].tolist() == list(range(1, row["epochs"] + 1))
            assert (curve["phase"] == "warmup").sum() == min(row["warmup_epochs"], row["epochs"])
            assert curve["val_accuracy"].iloc[-1] == row["last_val_accuracy"]
            at_best = curve.loc[curve["epoch"] == row["best_epoch"], "test_accuracy"]
            assert at_best.tolist() == [row["test_accuracy_at_best"]]
            own = curve["epoch"] > row["epochs_reused"]  # what a warm-up took was counted where it was trained
            assert curve.loc[own, "seconds"].sum() == pytest.approx(row["train_seconds"])

    def test_no_trial_wins_by_its_warm_up_and_those_that_are_stopped_stop_at_a_rung(self, trials):
        others = trials[trials["arm"] != "ce"]
        assert (others["best_epoch"] > others["warmup_epochs"]).all()
        stopped = trials[trials["status"] == "stopped"]
        assert set(stopped["epochs"] - stopped["warmup_epochs"]) <= {4, 8, 16}
        assert (trials.loc[trials["status"] == "completed", "epochs"] == 24).all()

    def test_rows_hold_all_that_a_training_needs(self, trials):
        for row in trials.to_dict("records"):
            settings = settings_of(row)
            assert (settings.epochs, settings.model, settings.smooth_rate) == (24, "mlp", row["smooth_rate"])
            assert settings.arm == row["arm"]

    def test_the_verdicts_follow_from_the_trials(self, run):
        content = json.loads((run / "run.json").read_text())
        verdicts = find(load_run(run)).verdicts
        assert content["verdicts"] == json.loads(json.dumps(plain(verdicts)))
        assert [verdict.noise_level for verdict in verdicts] == list(LEVELS)
        assert {verdict.finding for verdict in verdicts} <= {"not_confirmed", "not_trained_enough"}
        assert {verdict.search_difference.num_samples for verdict in verdicts} == {4000}

    def test_where_the_results_come_from(self, run):
        content = json.loads((run / "run.json").read_text())
        assert (content["status"], content["schema_version"]) == ("finished", 1)
        (session,) = content["sessions"]
        assert {"python", "torch", "ray", "optuna", "pyarrow"} <= set(session["versions"])
        assert all(session["versions"][name] for name in ("python", "torch", "ray", "optuna"))
        assert session["hardware"]["cpus"] == os.cpu_count()
        assert "--num-trials 6" in session["command"]
        assert session["started_at"] < session["finished_at"]
        assert set(content["identity"]["fingerprints"]) == set(LEVELS)
        assert all(len(found) == 64 for found in content["identity"]["fingerprints"].values())

    def test_no_checkpoint_and_no_temporary_file_is_left(self, run):
        assert list((run / "checkpoints").iterdir()) == []
        left = [p.name for p in run.rglob("*") if p.name.startswith(".") and p.name != ".lock"]
        assert [name for name in left if name.endswith(".tmp")] == []


def fields_of(schema: pa.Schema) -> list[tuple[str, str, bool]]:
    """Names, types and nullability; Parquet has a name of its own for what is in a list."""
    return [(f.name, str(f.type).replace("element:", "item:"), f.nullable) for f in schema]


def duckdb_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{duckdb_type(kind.value_type)}[]"
    names = {
        pa.string(): "VARCHAR",
        pa.int64(): "BIGINT",
        pa.float64(): "DOUBLE",
        pa.bool_(): "BOOLEAN",
        pa.binary(): "BLOB",
    }
    return names.get(kind, "TIMESTAMP WITH TIME ZONE")


class TestFinishedRun:
    def test_the_same_command_prints_the_results_again_without_starting_ray(self, watched_search, run):
        before = {part.name: part.stat().st_mtime_ns for part in (run / "trials").iterdir()}
        done = run_search(*ARGUMENTS, "--out", "run", folder=run.parent)
        assert (done.code, done.err) == (0, "")
        last = watched_search.done.out[watched_search.done.out.index("[12/12]") :].partition("\n")[2]
        assert done.out.endswith(last)
        assert "[12/12]" not in done.out
        assert {part.name: part.stat().st_mtime_ns for part in (run / "trials").iterdir()} == before
        assert len(json.loads((run / "run.json").read_text())["sessions"]) == 1

    def test_other_settings_are_refused_with_the_list_of_differences(self, run):
        arguments = [*ARGUMENTS, "--seed", "3", "--objective", "last"]
        done = run_search(*arguments, "--out", "run", folder=run.parent)
        assert done.has_failed_in_one_line(), done
        for part in ("settings.seed: 0 -> 3", "settings.objective: best -> last", "--out"):
            assert part in done.err


class TestWhileItRan:
    """The tables can be read at any moment: before the first trial ends, while the search goes on, at its end."""

    def test_no_read_ever_failed(self, watched_search):
        assert watched_search.reader.errors == []

    @pytest.mark.parametrize("kind", KINDS)
    def test_rows_were_seen_to_come_and_none_to_go(self, watched_search, kind):
        counts = watched_search.reader.counts[kind]
        assert counts[0] == 0
        assert counts == sorted(counts)
        assert len(counts) > 20
        assert len(set(counts)) > 2  # it was read between the first row and the last

    def test_every_read_had_all_columns(self, watched_search):
        expected = {("trials", *trial_schema().names), ("epochs", *epoch_schema().names)}
        assert watched_search.reader.columns == expected

    def test_a_watcher_saw_trials_run_and_end(self, watched_search):
        looks = [look for look in watched_search.reader.looks if look.status == "running"]
        assert watched_search.reader.looks[-1].status in ("running", "finished")
        assert {look.stage for look in looks} == {"search"}
        assert {look.total for look in looks} == {12}
        ended = [look.ended for look in looks]
        assert ended == sorted(ended)
        assert len(set(ended)) > 4
        assert any(look.running for look in looks)
        # A slot that is free is taken again: no trial goes to a slot beyond those that run at once.
        assert all(sorted(set(look.slots)) == sorted(look.slots) for look in looks)
        assert max(slot for look in looks for slot in look.slots) < os.cpu_count()
        assert looks[-1].curves == 2
