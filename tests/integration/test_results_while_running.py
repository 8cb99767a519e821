"""The tables of a run can be read at any moment: before the first trial ends, while it goes on, at its end."""

import os

import pytest
from watching import PARTS

from nls_tune.runs.schemas import epoch_schema, trial_schema

pytestmark = pytest.mark.timeout(180)
KINDS = [f"{reader} {part}" for reader in ("pandas", "duckdb") for part in PARTS]


def test_no_read_ever_failed(watched_search):
    assert watched_search.reader.errors == []


@pytest.mark.parametrize("kind", KINDS)
def test_rows_were_seen_to_come_and_none_to_go(watched_search, kind):
    counts = watched_search.reader.counts[kind]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert len(counts) > 20
    assert len(set(counts)) > 2  # it was read between the first row and the last


def test_every_read_had_all_columns(watched_search):
    expected = {("trials", *trial_schema().names), ("epochs", *epoch_schema().names)}
    assert watched_search.reader.columns == expected


def test_a_watcher_saw_trials_run_and_end(watched_search):
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
