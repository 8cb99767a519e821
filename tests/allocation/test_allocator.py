import heapq
import zlib
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Self

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from nls_tune.allocation.allocator import Allocator, Group, Outcome, Suggestion
from nls_tune.allocation.asha import Rungs
from nls_tune.allocation.distributions import DistributionSpace
from nls_tune.plan.level import GroupKey
from nls_tune.spaces.space import SearchSpace, largest_remainder

LENGTH = 9
RUNGS = Rungs.geometric(1, LENGTH, 3)


SPACE = SearchSpace(
    name="a space",
    space={
        "smooth_rate": {"type": "float", "low": -8, "high": 0.8, "scale": "log1m", "default": -1},
        "warmup_epochs": {"type": "int", "low": 0, "high": 4, "default": 2},
        "lr": {"type": "float", "low": 1e-4, "high": 0.1, "scale": "log", "default": 0.01},
    },
    budget={"epochs": LENGTH, "grace_epochs": 1},
)
GRID = SearchSpace(
    name="grid",
    space={
        "smooth_rate": {"type": "choice", "values": [0.2, 0.1, 0, -1, -2, -4, -8], "default": 0},
        "warmup_epochs": {"type": "choice", "values": [1, 3], "default": 1},
    },
    fixed={"lr": 0.1},
    budget={"epochs": 9},
)


def make_groups() -> list[Group]:
    """Three groups as a search has them; the last is finite and runs to its end."""
    return [
        Group("a/ce", SPACE.arm("ce"), 4, SPACE.arm("ce").start([0.0]), share=4),
        Group("a/negative", SPACE.arm("negative"), 8, SPACE.arm("negative").start([-4.0, -2.0]), share=8),
        Group("b/negative", GRID.arm("negative"), 8, GRID.arm("negative").start([-2.0000001]), share=8),
    ]


@given(st.integers(0, 500), st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_largest_remainder_is_exact_where_fractions_say_so(total, shares):
    assume(sum(shares))
    exact = [Fraction(total * share, sum(shares)) for share in shares]
    expected = [int(x) for x in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (-(exact[i] - expected[i]), i))
    for i in by_remainder[: total - sum(expected)]:
        expected[i] += 1
    assert largest_remainder(total, shares) == expected


def test_rungs_are_geometric_and_below_the_end():
    assert Rungs.geometric(1, 27, 3).levels == (1, 3, 9)
    assert Rungs.geometric(1, 28, 3).levels == (1, 3, 9, 27)
    assert Rungs.geometric(6, 40, 3).levels == (6, 18)
    assert Rungs.geometric(5, 40, 2.5).levels == (5, 12, 31)
    assert Rungs.geometric(40, 40, 3).levels == ()


@given(st.integers(1, 20), st.integers(1, 200), st.sampled_from([1.1, 1.25, 1.5, 2, 3, 4]))
def test_rungs_increase(grace, longest, factor):
    levels = Rungs.geometric(grace, longest, factor).levels
    assert list(levels) == sorted(set(levels))
    assert all(grace <= level < longest for level in levels)


values = st.integers(0, 8).map(lambda n: n / 8)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 9]), values), max_size=40), st.sampled_from([2, 3, 4]))
def test_a_trial_goes_on_if_it_is_among_the_best_that_its_rung_has_seen(events, factor):
    rungs, seen = Rungs((1, 3, 9), factor), {}
    for clock, value in events:
        seen.setdefault(clock, []).append(value)
        better = sum(other > value for other in seen[clock])
        expected = clock == 2 or better < max(1, len(seen[clock]) // factor)
        assert rungs.passes(clock, value) == expected


def epoch_seconds(suggestion: Suggestion) -> float:
    return {"a/ce": 1.0, "a/negative": 0.2, "b/negative": 3.0}.get(suggestion.group, 1.0)


def kind_of(suggestion: Suggestion) -> int:
    return zlib.crc32(name_of(suggestion.config).encode()) % 97


def name_of(config: dict[str, Any]) -> str:
    return repr(sorted(config.items()))


def value_at(suggestion: Suggestion, epoch: int) -> float | None:
    if epoch <= 1 and suggestion.config["warmup_epochs"] > 2:
        return None  # nothing counts yet
    return round((1 - 0.5**epoch) * (0.3 + kind_of(suggestion) / 194), 6)


@dataclass
class Trial:
    suggestion: Suggestion
    outcome: Outcome = "completed"
    value: float | None = None
    seconds: float = 0.0
    rung_values: dict[int, float] = field(default_factory=dict)


class Search:
    def __init__(self, allocator: Allocator, slots: int) -> None:
        self.allocator, self.slots = allocator, slots
        self.now, self.order = 0.0, 0
        self.running: list[tuple[float, int, int, Trial]] = []
        self.asked: list[Suggestion] = []
        self.ended: list[Trial] = []
        self.spent: Counter[str] = Counter()

    def _push(self, trial: Trial, epoch: int) -> None:
        self.order += 1
        heapq.heappush(self.running, (self.now + epoch_seconds(trial.suggestion), self.order, epoch, trial))

    def step(self) -> bool:
        """Run until the next epoch of any trial ends; False when there is nothing left."""
        while len(self.running) < self.slots and (suggestion := self.allocator.ask()) is not None:
            self.asked.append(suggestion)
            self._push(Trial(suggestion), 1)
        if not self.running:
            return False
        self.now, _, epoch, trial = heapq.heappop(self.running)
        trial.seconds += epoch_seconds(trial.suggestion)
        self.spent[trial.suggestion.group] += epoch_seconds(trial.suggestion)
        outcome = self._end_of(trial, epoch)
        if outcome is None:
            self._push(trial, epoch + 1)
        else:
            trial.outcome = outcome
            self.allocator.tell(trial.suggestion.number, outcome, trial.value, trial.seconds)
            self.ended.append(trial)
        return True

    def _end_of(self, trial: Trial, epoch: int) -> Outcome | None:
        """Report an epoch; how the trial ends with it, None if it goes on."""
        kind = kind_of(trial.suggestion)
        if kind % 11 == 0 and epoch == 2:
            trial.value = None
            return "failed"
        if kind % 7 == 0 and epoch == 4:
            return "diverged"
        trial.value = value_at(trial.suggestion, epoch)
        if epoch == LENGTH:
            return "completed"
        if epoch in RUNGS.levels and trial.value is not None:
            trial.rung_values[epoch] = trial.value
        goes_on = self.allocator.report(trial.suggestion.number, epoch, trial.value, trial.seconds)
        return None if goes_on else "stopped"

    def run(self, steps: int | None = None) -> Self:
        while steps != 0 and self.step():
            steps = None if steps is None else steps - 1
        return self


def configs(trials: list[Suggestion]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for s in trials:
        found.setdefault(s.group, []).append(name_of(s.config))
    return found


@pytest.fixture(scope="module")
def searched() -> Search:
    return Search(Allocator(make_groups(), RUNGS, seed=1), slots=2).run()


def test_every_group_gets_exactly_its_trials_each_once_and_start_points_first(searched):
    assert [s.number for s in searched.asked] == list(range(len(searched.asked)))
    assert searched.allocator.num_left() == 0
    assert searched.allocator.ask() is None
    for group in make_groups():
        asked = [s.config for s in searched.asked if s.group == group.key]
        assert len({name_of(config) for config in asked}) == len(asked) == group.num_trials
        assert asked[: len(group.start)] == list(group.start)
        assert all((config["smooth_rate"] == 0) == group.key.endswith("/ce") for config in asked)


def test_the_studies_know_how_every_trial_ended(searched):
    states = {"completed": TrialState.COMPLETE, "failed": TrialState.FAIL}
    assert {t.outcome for t in searched.ended} == {"completed", "stopped", "diverged", "failed"}
    expected = {g.key: set() for g in make_groups()}
    for trial in searched.ended:
        value = {"diverged": 0.0, "failed": None}.get(trial.outcome, trial.value)
        found = (name_of(trial.suggestion.config), states.get(trial.outcome, TrialState.PRUNED), value)
        expected[trial.suggestion.group].add(found)
    for group in make_groups():
        # A configuration that the sampler drew again is there twice, with the same result.
        decode, trials = group.space.decode, searched.allocator.study(group.key).trials
        assert {(name_of(decode(t.params)), t.state, t.value) for t in trials} == expected[group.key]


def test_a_group_judges_its_own_trials_alone():
    rungs = Rungs((1,), 3)
    allocator = Allocator([Group(k, SPACE.arm("ce"), 3) for k in ("a", "b")], rungs)
    first, second = allocator.ask(), allocator.ask()
    assert {first.group, second.group} == {"a", "b"}
    assert allocator.report(first.number, 1, 0.9, 1.0)
    assert allocator.report(second.number, 1, 0.1, 1.0)
    assert rungs.passes(1, 0.05)  # those handed over stay empty


@pytest.mark.parametrize("shares", [(1, 1, 1), (4, 8, 8), (1, 3, 9)])
def test_device_time_follows_the_shares_while_all_groups_have_work(shares):
    keys = ("a/ce", "a/negative", "b/negative")
    arms = ("ce", "negative", "negative")
    groups = [Group(k, SPACE.arm(a), 400, share=s) for k, a, s in zip(keys, arms, shares, strict=True)]
    search = Search(Allocator(groups, Rungs(()), seed=0), slots=2)
    # Without a sampler that learns the draws are quick, and time is what is looked at here.
    for group in groups:
        search.allocator.study(group.key).sampler = optuna.samplers.RandomSampler(seed=0)
    search.run(steps=1500)
    longest = {k: LENGTH * {"a/ce": 1.0, "a/negative": 0.2, "b/negative": 3.0}[k] for k in keys}
    per_share = {k: search.spent[k] / s for k, s in zip(keys, shares, strict=True)}
    slack = 2 * max(longest[k] / s for k, s in zip(keys, shares, strict=True))
    assert max(per_share.values()) - min(per_share.values()) <= slack
    assert min(per_share.values()) > 3 * slack  # enough was run to see it


@pytest.mark.parametrize(("shares", "asked"), [((1, 1), "ababab"), ((1, 2), "abbabb")])
def test_groups_begin_in_proportion_to_their_shares(shares, asked):
    groups = [Group(k, SPACE.arm("ce"), 9, share=share) for k, share in zip("ab", shares, strict=True)]
    allocator = Allocator(groups, Rungs(()))
    assert Counter(allocator.ask().group for _ in asked) == Counter(asked)


def test_the_time_of_running_trials_counts():
    allocator = Allocator([Group(k, SPACE.arm("ce"), 9) for k in "ab"], Rungs(()))
    slow = allocator.ask()
    assert slow.group == "a"
    allocator.report(slow.number, 1, 0.5, 10.0)
    for _ in range(4):
        quick = allocator.ask()
        assert quick.group == "b"
        allocator.tell(quick.number, "completed", 0.5, 1.0)


@pytest.mark.parametrize(
    ("outcome", "value", "state", "told"),
    [
        ("completed", 0.75, TrialState.COMPLETE, 0.75),
        ("stopped", 0.25, TrialState.PRUNED, 0.25),
        ("diverged", None, TrialState.PRUNED, 0.0),
        ("diverged", 0.9, TrialState.PRUNED, 0.0),
        ("failed", None, TrialState.FAIL, None),
        ("failed", 0.5, TrialState.FAIL, None),
        ("completed", None, TrialState.FAIL, None),
        ("stopped", None, TrialState.FAIL, None),
    ],
)
def test_what_the_study_is_told_and_telling_twice_changes_nothing(outcome, value, state, told):
    allocator = Allocator([Group("a", SPACE.arm("ce"), 3)], Rungs((1, 3)))
    suggestion = allocator.ask()
    allocator.report(suggestion.number, 3, value, 2.0)
    for _ in range(2):
        allocator.tell(suggestion.number, outcome, value)
        allocator.tell(suggestion.number, "failed", None, 100.0)
        (trial,) = allocator.study("a").trials
        assert (trial.state, trial.value) == (state, told)
        clock = 0 if outcome == "diverged" else 3  # TPE prefers what was stopped late: divergence is the worst
        assert trial.intermediate_values == ({clock: told} if state == TrialState.PRUNED else {})
    assert allocator.num_left() == 2


def test_the_worst_value_is_the_groups_so_that_no_diverged_trial_is_the_best():
    allocator = Allocator([Group("a", SPACE.arm("ce"), 3, worst=-100.0)], Rungs(()))
    diverged, completed = allocator.ask(), allocator.ask()
    allocator.tell(diverged.number, "diverged", None)
    allocator.tell(completed.number, "completed", -3.0)
    assert [t.value for t in allocator.study("a").trials] == [-100.0, -3.0]
    assert allocator.study("a").best_value == -3.0


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_samplers_that_ignore_stopped_trials_are_told_of_diverged_ones_as_complete(sampler):
    allocator = Allocator([Group("a", SPACE.arm("ce"), 3)], Rungs(()), sampler=sampler)
    allocator.tell(allocator.ask().number, "diverged", None)
    (trial,) = allocator.study("a").trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.0)


class Repeating(optuna.samplers.RandomSampler):
    def sample_independent(self, study, trial, param_name, param_distribution):
        return 0.5


def repeating(num_trials: int) -> Allocator[str]:
    """A group whose sampler draws one point of a log scale for ever."""
    space = DistributionSpace(lr=FloatDistribution(1e-5, 1.0, log=True))
    allocator = Allocator([Group("a", space, num_trials)], Rungs(()), seed=3)
    allocator.study("a").sampler = Repeating()
    return allocator


@pytest.mark.parametrize(
    ("outcome", "value", "state"),
    [("stopped", 0.25, TrialState.PRUNED), ("diverged", None, TrialState.PRUNED), ("failed", None, TrialState.FAIL)],
)
@pytest.mark.parametrize("ended_before", [True, False])
def test_a_configuration_drawn_again_ends_as_the_trial_that_it_repeats(outcome, value, state, ended_before):
    allocator = repeating(2)
    first = allocator.ask()
    allocator.report(first.number, 3, value, 1.0)
    if ended_before:
        allocator.tell(first.number, outcome, value)
    second = allocator.ask()
    assert first.config == {"lr": 0.5} != second.config
    same = [t for t in allocator.study("a").trials if t.params == {"lr": 0.5}]
    assert len(same) > 1
    assert {t.state for t in same} == {state if ended_before else TrialState.RUNNING}
    if not ended_before:
        allocator.tell(first.number, outcome, value)
    allocator.tell(second.number, "completed", 0.5)
    trials = allocator.study("a").trials
    same = [(t.state, t.value, t.intermediate_values) for t in trials if t.params == {"lr": 0.5}]
    told = 0.0 if outcome == "diverged" else value
    steps = {"stopped": {3: value}, "diverged": {0: 0.0}}.get(outcome, {})
    assert same == [(state, told, steps)] * len(same)
    assert not any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials)


def test_random_draws_keep_the_scale_of_their_distribution_and_repeat_with_the_seed():
    drawn = []
    for _ in range(2):
        allocator = repeating(61)
        drawn.append([allocator.ask().config["lr"] for _ in range(61)][1:])
    assert drawn[0] == drawn[1]
    # Three fifths of log(1e-5 .. 1) lie below 1e-2: 36 of 60 draws, with a standard deviation of 4.
    assert 22 <= sum(lr < 1e-2 for lr in drawn[0]) <= 50


def test_a_trial_without_a_value_is_not_judged():
    allocator = Allocator([Group("a", SPACE.arm("ce"), 3)], Rungs((1,), 3))
    first, second = allocator.ask(), allocator.ask()
    assert allocator.report(first.number, 1, 0.9, 1.0)
    assert allocator.report(second.number, 1, None, 1.0)
    assert allocator.report(second.number, 2, 0.1, 2.0)


def test_keys_of_groups_must_differ():
    with pytest.raises(ValueError, match=r"must differ, got \['a', 'a'\]"):
        Allocator([Group("a", SPACE.arm("ce"), 1)] * 2, RUNGS)


def test_a_group_that_has_no_configuration_left_ends_and_the_others_go_on():
    allocator = Allocator([Group("a", GRID.arm("ce"), 3), Group("b", SPACE.arm("ce"), 4)], RUNGS)
    asked = []
    while (suggestion := allocator.ask()) is not None:
        asked.append(suggestion)
    assert {s.config["warmup_epochs"] for s in asked if s.group == "a"} == {1, 3}
    assert sum(s.group == "b" for s in asked) == 4
    assert allocator.num_dropped() == 1
    assert allocator.num_left() == 0


def test_the_seed_decides_the_search():
    first, again, other = (Search(Allocator(make_groups(), RUNGS, seed=s), slots=2).run(60) for s in (5, 5, 6))
    assert first.asked == again.asked
    assert first.asked != other.asked


def test_a_key_is_any_object_whose_text_seeds_its_sampler():
    key, text, other = GroupKey("symmetric:0.4", "negative"), "symmetric:0.4/negative", "symmetric:0.2/negative"
    asked = []
    for groups in ((key,), (text,), (key, other)):
        allocator = Allocator([Group(k, SPACE.arm("negative"), 3) for k in groups], RUNGS, seed=4)
        suggestions = [allocator.ask() for _ in range(3 * len(groups))]
        assert {s.group for s in suggestions} == set(groups)
        asked.append([s.config for s in suggestions if s.group == groups[0]])
        assert allocator.study(groups[0]).study_name == text
    assert asked[0] == asked[1] == asked[2]
    assert len({repr(s.config) for s in suggestions}) == 6  # the other group draws other numbers


def resumed(earlier: Search, seed: int = 1) -> Allocator:
    """An allocator that has adopted what ended, and puts first what was running."""
    allocator = Allocator(make_groups(), RUNGS, seed=seed)
    for trial in earlier.ended:
        s = trial.suggestion
        allocator.adopt(s.group, s.config, trial.outcome, trial.value, trial.seconds, trial.rung_values)
    for *_, trial in earlier.running:
        allocator.requeue(trial.suggestion.group, trial.suggestion.config)
    return allocator


def study_table(allocator: Allocator, group: Group) -> list[str]:
    """What a study knows of every configuration: params are told exactly, or rounded as they were run."""
    table: dict[str, str] = {}
    for t in allocator.study(group.key).trials:
        facts = (t.state, t.value, sorted(t.intermediate_values.items()))
        table.setdefault(name_of(group.space.decode(t.params)), repr(facts))
    return sorted(f"{name}: {facts}" for name, facts in table.items())


@settings(max_examples=settings.default.max_examples // 8)
@given(st.integers(0, 110))
def test_adopting_trials_is_as_good_as_having_run_them(steps):
    # One slot, cut between two trials: nothing runs, so that both must know the same.
    search = Search(Allocator(make_groups(), RUNGS, seed=1), slots=1).run(steps)
    while search.running and search.step():
        if not search.running:
            break
    again = resumed(search)
    assert again.num_left() == search.allocator.num_left()
    for group in make_groups():
        assert study_table(again, group) == study_table(search.allocator, group)
    # The rungs agree: whatever the next trial reports, both say the same of it.
    old, new = search.allocator.ask(), again.ask()
    assert (old is None) == (new is None)
    if old is not None:
        assert old.group == new.group
        reports = [(level, value, 1.0) for level in RUNGS.levels for value in (0.2, 0.45, 0.6, 0.75)]
        before, after = ([a.report(s.number, *r) for r in reports] for a, s in ((search.allocator, old), (again, new)))
        assert before == after


@settings(max_examples=settings.default.max_examples // 8)
@given(st.integers(0, 150), st.integers(1, 3))
def test_a_search_that_is_cut_anywhere_and_resumed_runs_everything_once(steps, slots):
    earlier = Search(Allocator(make_groups(), RUNGS, seed=1), slots).run(steps)
    interrupted = [t.suggestion for *_, t in earlier.running]
    later = Search(resumed(earlier), slots).run()
    together = [t.suggestion for t in earlier.ended] + later.asked
    assert Counter(s.group for s in together) == {g.key: g.num_trials for g in make_groups()}
    for names in configs(together).values():
        assert len(set(names)) == len(names)
    asked = configs(later.asked)
    for suggestion in interrupted:
        place = asked[suggestion.group].index(name_of(suggestion.config))
        assert place < len(interrupted)  # before anything new of its group
    for group in make_groups():
        states = Counter(t.state for t in later.allocator.study(group.key).trials)
        assert states[TrialState.RUNNING] == 0
        assert states[TrialState.WAITING] == 0


def test_a_finite_group_with_a_start_point_runs_every_training_once():
    part = GRID.arm("negative")
    allocator = Allocator([Group("b/negative", part, 8, part.start([-2.0000000000000004]))], Rungs(()))
    found = {GRID.settings(allocator.ask().config, seed=0).model_dump_json() for _ in range(8)}
    assert len(found) == 8


def test_a_new_seed_after_adoption_leaves_what_is_known():
    allocator = resumed(Search(Allocator(make_groups(), RUNGS, seed=1), slots=1).run(50))
    tables = {g.key: study_table(allocator, g) for g in make_groups()}
    allocator.reseed(99)
    assert {g.key: study_table(allocator, g) for g in make_groups()} == tables
    assert allocator.ask() is not None


FINITE = DistributionSpace(
    layers=IntDistribution(1, 5, step=2),
    drop=FloatDistribution(0.0, 0.5, step=0.25),
    norm=CategoricalDistribution(["batch", None]),
    fixed=FloatDistribution(0.1, 0.1),
)


def ask_all(allocator: Allocator) -> list[dict]:
    found = []
    while (suggestion := allocator.ask()) is not None:
        found.append(suggestion.config)
        allocator.tell(suggestion.number, "completed", len(found) / 100, 1.0)
    return found


def test_points_are_all_combinations():
    points = FINITE.points()
    assert len(points) == 3 * 3 * 2
    assert {p["layers"] for p in points} == {1, 3, 5}
    assert {p["drop"] for p in points} == {0.0, 0.25, 0.5}
    assert {p["norm"] for p in points} == {"batch", None}
    assert {p["fixed"] for p in points} == {0.1}


def test_a_real_parameter_has_no_points():
    assert DistributionSpace(lr=FloatDistribution(0.1, 1), layers=IntDistribution(1, 2)).points() is None


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_finite_group_runs_every_point_once_and_ends(sampler):
    allocator = Allocator([Group("a", FINITE, 30)], Rungs(()), sampler=sampler)
    found = ask_all(allocator)
    assert len(found) == 18
    assert all(point in found for point in FINITE.points())


def test_start_points_come_first_and_configurations_are_parameters():
    space = DistributionSpace(lr=FloatDistribution(1e-5, 1, log=True), layers=IntDistribution(1, 9))
    start = ({"lr": 0.5, "layers": 2}, {"layers": 3, "lr": 0.25})
    found = ask_all(Allocator([Group("a", space, 6, start)], Rungs(()), seed=3))
    assert found[:2] == list(start)
    assert all(1e-5 <= c["lr"] <= 1 and c["layers"] in range(1, 10) for c in found)


@pytest.mark.parametrize(
    ("config", "message"),
    [({"lr": 0.5}, "must have"), ({"lr": 0.5, "x": 1, "layers": 1}, "must have"), ({"lr": 2.0, "layers": 1}, "lr")],
)
def test_a_start_point_outside_is_refused(config, message):
    space = DistributionSpace(lr=FloatDistribution(0.1, 1), layers=IntDistribution(1, 2))
    with pytest.raises(ValueError, match=message):
        space.encode(config)


def test_a_space_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        DistributionSpace()
