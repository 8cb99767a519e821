from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.allocation import allocation
from nls_tune.runs.run_json import RunSession

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
#: Start, length, device.
intervals = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 20), st.sampled_from("ab"), st.sampled_from(["cuda:0", "cuda:1"])),
    min_size=1,
    max_size=25,
)


def rows_of(spans):
    return [
        trial_row(
            trial_id=f"{i:03}", node=node, device=device,
            started_at=BEGIN + timedelta(seconds=start), finished_at=BEGIN + timedelta(seconds=start + length),
        )
        for i, (start, length, node, device) in enumerate(spans)
    ]  # fmt: skip


@settings(max_examples=settings.default.max_examples // 2)
@given(intervals)
def test_slots_do_not_overlap_and_are_as_few_as_possible(spans):
    found = allocation(trials_frame(rows_of(spans)))
    assert len(found.spans) == len(spans)
    by_slot: dict[int, list] = {}
    for span in found.spans:
        by_slot.setdefault(span.slot, []).append(span)
    for slot in by_slot.values():
        assert len({(span.node, span.device) for span in slot}) == 1
        for before, after in itertools.pairwise(slot):
            assert before.start_seconds + before.seconds <= after.start_seconds
    # No assignment needs fewer slots of a device than trials that run at one moment, touching ones apart.
    fewest = 0
    for device in {span[2:] for span in spans}:
        mine = [(start, length) for start, length, *rest in spans if tuple(rest) == device]
        fewest += max(1, *(sum(s <= start < s + n for s, n in mine) for start, _ in mine))
    assert found.num_slots == len(by_slot) == fewest
    assert sorted(by_slot) == list(range(fewest))


def test_numbers_are_those_of_pandas_in_any_time_zone():
    rows = rows_of([(0, 10, "a", "x"), (2, 10, "a", "x"), (15, 5, "b", "x")])
    utc = trials_frame(rows)
    found = allocation(utc)
    assert (found.started_at, found.wall_seconds, found.num_slots) == (BEGIN, 20.0, 3)
    assert found.busy_share == pytest.approx(25 / 60)
    assert found.started_at.tzinfo is not None
    naive = utc.assign(
        **{c: utc[c].dt.tz_localize(None).astype("datetime64[ns]") for c in ("started_at", "finished_at")}
    )
    tokyo = utc.assign(**{c: utc[c].dt.tz_convert("Asia/Tokyo") for c in ("started_at", "finished_at")})
    for other in (naive, tokyo):
        assert allocation(other).spans == found.spans
        assert allocation(other).busy_share == found.busy_share


def test_what_groups_cost():
    negative = {"smooth_rate": -1.0, "epochs": 40}
    rows = [
        trial_row(negative, status="stopped", epochs=8, epochs_reused=3, train_seconds=2.0, noise_level="b"),
        trial_row(negative, status="diverged", epochs=5, epochs_reused=1, train_seconds=1.0, noise_level="b", minute=1),
        trial_row(negative, status="completed", epochs=40, train_seconds=4.0, noise_level="b", minute=2),
        trial_row({"epochs": 40}, status="stopped", epochs=12, train_seconds=3.0, noise_level="b", minute=3),
        trial_row(negative, stage="confirm_all", epochs=20, train_seconds=3.0, noise_level="b", minute=4),
        trial_row(negative, stage="confirm", epochs=40, train_seconds=3.0, noise_level="b", minute=5),
        trial_row(negative, status="stopped", epochs=39, train_seconds=3.0, noise_level="a", minute=6),
    ]
    frame = trials_frame(rows)
    found = allocation(frame, ["a", "b"])
    assert [(g.noise_level, g.stage, g.arm) for g in found.groups] == [
        ("a", "search", "negative"), ("b", "search", "ce"), ("b", "search", "negative"), ("b", "confirm", "negative"),
        ("b", "confirm_all", "negative"),
    ]  # fmt: skip
    assert [g.epochs_saved for g in found.groups] == [1, 28, 32, 0, 0]
    search = found.groups[2]
    assert (search.num_trials, search.epochs_trained, search.epochs_reused) == (3, 49, 4)
    assert search.train_seconds == pytest.approx(7.0)
    assert sum(g.epochs_trained for g in found.groups) == (frame["epochs"] - frame["epochs_reused"]).sum()
    assert allocation(frame).groups[0].noise_level == "b"


def test_without_a_trial_there_is_none_and_a_clock_set_back_is_no_time():
    assert allocation(trials_frame([])) is None
    assert allocation(trials_frame(rows_of([(0, 1, "a", "x")])).assign(finished_at=pd.NaT)) is None
    found = allocation(trials_frame(rows_of([(5, -3, "a", "x")])))
    assert (found.spans[0].seconds, found.wall_seconds, found.busy_share) == (0.0, 0.0, 0.0)


def allocate(trials, sessions):
    return allocation(trials, (), [RunSession.model_validate(session) for session in sessions])


def at(seconds):
    return (BEGIN + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("sessions", "pause"),
    [
        ([(-5, 25), (1000, 1030)], 975),
        ([(-5, None), (1000, None)], 980),  # killed: the last end of its trials stands for its own
        ([(1000, 1030), (-5, 25)], 975),
        ([(-5, 25), (300, 310), (1000, 1030)], 965),  # one without a trial
        ([(-5, 25), (300, None), (1000, 1030)], 975),  # one that was killed without a trial ends when it began
        ([(-500, -400), (-5, 25), (1000, 1030)], 975),  # before the first trial nobody waits
        ([(-5, 1030)], 0),
        ([], 0),
    ],
)
def test_a_pause_between_sessions_is_not_idle_time(sessions, pause):
    trials = trials_frame(rows_of([(0, 20, "a", "x"), (5, 10, "a", "y"), (1004, 16, "a", "x"), (1010, 10, "a", "y")]))
    content = [{"started_at": at(began), **({} if ended is None else {"finished_at": at(ended)})}
               for began, ended in sessions]  # fmt: skip
    found = allocate(trials, content)
    assert (found.paused_seconds, found.wall_seconds) == (pause, 1020 - pause)
    assert found.busy_share == pytest.approx(56 / (2 * (1020 - pause)))
    assert [span.start_seconds for span in found.spans] == [0, 5, 1004 - pause, 1010 - pause]
    assert [span.seconds for span in found.spans] == [20, 10, 16, 10]
    assert found.groups == allocation(trials).groups


def test_a_trial_that_spans_a_pause_is_as_long_as_it_ran():
    trials = trials_frame(rows_of([(0, 100, "a", "x")]))
    found = allocate(trials, [{"started_at": at(0), "finished_at": at(30)}, {"started_at": at(80)}])
    assert (found.spans[0].seconds, found.busy_share, found.paused_seconds) == (50, 1.0, 50)
    assert allocate(trials, [{}]).spans == allocation(trials).spans


@settings(max_examples=settings.default.max_examples // 2)
@given(
    st.lists(st.tuples(st.integers(-300, 2500), st.none() | st.integers(-50, 800)), max_size=6),
    st.lists(st.tuples(st.integers(0, 2500), st.integers(-5, 400), st.just("a"), st.sampled_from("xy")), min_size=1),
)
def test_no_sessions_make_a_time_negative_or_a_slot_more_than_busy(sessions, spans):
    content = [
        {"started_at": at(began), **({} if length is None else {"finished_at": at(began + length)})}
        for began, length in sessions
    ]  # fmt: skip
    trials = trials_frame(rows_of(spans)).assign(train_seconds=[300.0 * (i % 3) for i in range(len(spans))])
    found = allocate(trials, content)
    first, last = min(start for start, *_ in spans), max(start + max(0, length) for start, length, *_ in spans)
    assert min(found.wall_seconds, found.paused_seconds) >= 0
    assert found.wall_seconds + found.paused_seconds == last - first
    assert 0 <= found.busy_share <= 1 + 1e-12
    starts = [span.start_seconds for span in found.spans]
    assert starts == sorted(starts)
    assert starts[0] == 0
    for span, (start, length, *_) in zip(sorted(found.spans, key=lambda s: s.trial_id), spans, strict=True):
        assert 0 <= span.seconds <= max(0, length)
        assert span.start_seconds <= start - first
        assert span.start_seconds + span.seconds <= found.wall_seconds


def test_a_run_whose_confirmation_trained_batches_is_read():
    trials = trials_frame(rows_of([(0, 10, "a", "x"), (20, 10, "a", "x"), (20, 12, "a", "x")]))
    batches = {"batches": {"confirm": {"001": 0, "002": 0}}, "unbatched_at": at(15)}
    found = allocate(trials, [{"started_at": at(-5), **batches}])
    assert found.spans == allocation(trials).spans
    assert [span.slot for span in found.spans] == [0, 0, 1]


def test_slots_that_the_rows_know_are_taken_and_else_found():
    trials = trials_frame(rows_of([(0, 10, "a", "x"), (1, 20, "a", "y"), (12, 10, "a", "y")]))
    known = allocation(trials.assign(slot=[1, 2, 1]))
    assert ([span.slot for span in known.spans], known.num_slots) == ([1, 2, 1], 3)
    for partly in (trials, trials.assign(slot=[1, None, 1])):
        assert [span.slot for span in allocation(partly).spans] == [0, 1, 2]
