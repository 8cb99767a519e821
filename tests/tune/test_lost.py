"""Trials that lost their process, without Ray: what its texts mean, and how such a trial goes on."""

from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher
from test_adapters import METRIC, FakeAllocator, read, report
from test_recorder import LEVEL, Driven

from nls_tune import read_trials
from nls_tune.allocation.allocator import Suggestion
from nls_tune.session import searching
from nls_tune.tune import lost as module
from nls_tune.tune.adapters import AllocationScheduler, AllocationSearcher, ListSearcher, WorkerSavingScheduler
from nls_tune.tune.lost import MOST_LOSSES, LostTrials, exception_line, find_loss

CUDA = """Failure # 1 (occurred at 2026-01-01_00-00-00)
\x1b[36mray::TrainingTrainable.train()\x1b[39m (pid=17, ip=10.0.0.1, actor_id=ab, repr=<...>)
  File "/x/trial.py", line 3, in train
    loss.backward()
RuntimeError: CUDA error: device-side assert triggered
CUDA kernel errors might be asynchronously reported at some other API call: the stacktrace may be wrong.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""
IN_SETUP = """Failure # 1 (occurred at 2026-01-01_00-00-00)
The actor died because of an error raised in its creation task, \x1b[36mray::TrainingTrainable.__init__()\x1b[39m \
(pid=3, ip=10.0.0.1)
  File "/x/trainable.py", line 3, in setup
    import torch
ModuleNotFoundError: No module named 'torch'
"""
DIED = """Failure # 1 (occurred at 2026-01-01_00-00-00)
The actor died unexpectedly before finishing this task.
\tclass_name: TrainingTrainable
\tpid: 20809
\tip: 10.0.0.1
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed \
by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed unexpectedly.
"""
CANCELLED = """The actor died unexpectedly before finishing this task.
\tclass_name: TrainingTrainable
The actor never ran - it was cancelled before it started running.
"""
NODE = "The actor died unexpectedly before finishing this task.\nThe actor died because its node died. Reason: lost.\n"
MEMORY = """1 worker(s) were killed due to the node running low on memory. Killed: \
ray::TrainingTrainable.train (pid=20, actual memory used=1.2GB, worker ID=ab)
Memory on the node (IP: 10.0.0.1, ID: ab) was 27.94GB used / 28.80GB limit (0.970139)
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/x.html.
"""
LOST_OBJECT = """\x1b[36mray::TrainingTrainable.__init__()\x1b[39m (pid=3, ip=10.0.0.1)
  File "/x/worker.py", line 3, in get
ray.exceptions.ObjectLostError: Failed to retrieve object ab.
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (CUDA, "RuntimeError: CUDA error: device-side assert triggered"),
        (IN_SETUP, "ModuleNotFoundError: No module named 'torch'"),
        ("Traceback:\n  File \"x\", line 1\nStrange\nmore words", "Strange"),
        ("  File \"x\"\nKeyError: 'a'\n\nDuring handling:\n  File \"y\"\nKeyboardInterrupt", "KeyboardInterrupt"),
        ("torch.OutOfMemoryError: no room\nSee the documentation: it helps.", "torch.OutOfMemoryError: no room"),
        ("  words only", "words only"),
        ("", "unknown error"),
    ],
)  # fmt: skip
def test_the_line_of_an_error_begins_with_the_exceptions_type(text, line):
    assert exception_line(text) == line


def test_what_the_training_raised_is_its_failure():
    assert find_loss(CUDA) is None
    assert find_loss(IN_SETUP) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DIED, "its process was ended from outside, or crashed"),
        (CANCELLED, "its process was cancelled before it started"),
        (NODE, "its node is gone"),
        (LOST_OBJECT, "ray.exceptions.ObjectLostError: Failed to retrieve object ab."),
        ("", "unknown error"),
    ],
)
def test_whatever_else_ended_its_process_is_a_loss(text, reason):
    loss = find_loss(text)
    assert loss is not None
    assert (loss.reason, loss.is_memory) == (reason, False)


def test_memory_that_ran_short_is_said_with_what_was_used():
    loss = find_loss(MEMORY)
    assert loss is not None
    assert loss.is_memory
    assert loss.reason == "the machine's memory ran short (27.9 of 28.8 GB used, by all its programs)"
    assert "GB used" in find_loss("killed due to the node running low on memory").reason


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def error(folder, text: str, name: str) -> SimpleNamespace:
    file = folder / f"{name}.error"
    file.write_text(text)
    return SimpleNamespace(trial_id=name, error_file=str(file))


class TestSearcher:
    def lose(self, searcher, scheduler, folder, name: str, text: str = DIED) -> None:
        """As Tune does: the scheduler hears of the error first."""
        scheduler.on_trial_error(None, error(folder, text, name))
        searcher.on_trial_complete(name, error=True)

    def test_a_lost_trial_starts_again_as_the_same_suggestion_and_a_failed_one_does_not(self, tmp_path, clock):
        allocator = FakeAllocator([Suggestion(7, "a", {"lr": 0.1}), Suggestion(8, "a", {"lr": 0.2})])
        searcher = AllocationSearcher(allocator, lambda s: dict(s.config), read, metric=METRIC)
        scheduler = AllocationScheduler(searcher)
        searcher.suggest("t1")
        searcher.suggest("t2")
        self.lose(searcher, scheduler, tmp_path, "t1")
        assert allocator.told == []
        assert searcher.suggest("t3") == {"lr": 0.1}
        assert searcher.numbers["t3"] == 7
        self.lose(searcher, scheduler, tmp_path, "t2", CUDA)
        assert allocator.told == [(8, "failed", None)]
        scheduler.on_trial_result(None, SimpleNamespace(trial_id="t3"), report(0.7))
        assert allocator.reported[-1][0] == 7
        searcher.on_trial_complete("t3", report(0.75, finished=True))
        assert allocator.told[-1] == (7, "completed", 0.75, 3.0)
        assert searcher.suggest("t4") == Searcher.FINISHED

    def test_after_a_shortage_of_memory_fewer_run_at_once(self, tmp_path, clock):
        searcher = ListSearcher([{"n": n} for n in range(5)], metric=METRIC)
        scheduler = WorkerSavingScheduler(searcher)
        for name in "abc":
            searcher.suggest(name)
        self.lose(searcher, scheduler, tmp_path, "a", MEMORY)
        assert searcher.lost.at_once == 2
        assert searcher.suggest("d") is None  # b and c run
        searcher.on_trial_complete("b", report(0.7))
        assert searcher.suggest("d") == {"n": 0}
        self.lose(searcher, scheduler, tmp_path, "d", MEMORY)
        self.lose(searcher, scheduler, tmp_path, "c", MEMORY)
        assert searcher.lost.at_once == 1

    def test_so_it_is_if_the_kernel_ended_a_process(self, monkeypatch, clock):
        """Ray's monitor does not know every limit, and its text of such a process does not tell."""
        kills = iter([2, 3, 3, 4])
        monkeypatch.setattr(module, "oom_kills", lambda: next(kills))
        lost = LostTrials(_oom_kills=2)
        assert not lost.judge("a", DIED, 3).is_memory
        loss = lost.judge("b", DIED, 3)
        assert (loss.is_memory, loss.reason) == (True, "memory ran short, and the system ended its process")
        assert lost.at_once == 2
        assert not lost.judge("c", DIED, 2).is_memory
        lost.hung("d", "it hung")
        assert lost.judge("d", DIED, 2).reason == "it hung"
        assert lost.at_once == 2

    def test_each_time_it_waits_longer_and_in_the_end_it_is_set_aside(self, tmp_path, clock):
        searcher = ListSearcher([{"n": 0}, {"n": 1}], metric=METRIC)
        scheduler = WorkerSavingScheduler(searcher)
        assert searcher.suggest("0") == {"n": 0}
        waits = []
        for number in range(MOST_LOSSES):
            self.lose(searcher, scheduler, tmp_path, str(number))
            begun = clock[0]
            if searcher.lost.set_aside:
                break
            while searcher._waiting and not searcher.lost.is_ready(str(number)):
                clock[0] += 1
            waits.append(clock[0] - begun)
            assert searcher.suggest(str(number + 1)) == {"n": 0}
        assert waits == [0, 4, 8, 16, 32]
        assert list(searcher.lost.set_aside) == [str(MOST_LOSSES - 1)]
        assert searcher.suggest("x") == {"n": 1}  # the others go on
        said = searcher.lost.complaint()
        assert said.startswith("1 trial lost the training process 6 times in a row, last because its process was ended")
        assert said.endswith("the same command runs them again")

    def test_losses_that_lie_far_apart_do_not_add_up(self, tmp_path, clock):
        searcher = ListSearcher([{"n": 0}], metric=METRIC)
        scheduler = WorkerSavingScheduler(searcher)
        searcher.suggest("0")
        for number in range(3 * MOST_LOSSES):
            clock[0] += 3600
            self.lose(searcher, scheduler, tmp_path, str(number))
            assert searcher.suggest(str(number + 1)) == {"n": 0}

    def test_where_nothing_works_the_experiment_ends(self, clock):
        lost = LostTrials()
        searcher = ListSearcher([{"n": 0}], metric=METRIC, lost=lost)
        for name in "abc":
            assert not lost.is_hopeless
            for _ in range(MOST_LOSSES):
                lost.judge(name, DIED, 1)
        assert lost.is_hopeless
        assert searcher.suggest("d") == Searcher.FINISHED
        lost.reported()
        assert not lost.is_hopeless


class TestRecorder:
    def lose(self, driven: Driven, trial, text: str = DIED) -> None:
        driven.recorder._work.lost.judge(trial.trial_id, text, 3)
        driven.fail(trial)

    def test_a_lost_trial_has_no_row_and_ends_as_if_nothing_had_been(self, tiny_plan, tmp_path):
        driven = Driven(tiny_plan, tmp_path)
        trial = driven.trial()
        checkpoint = driven.start(trial)
        driven.report(trial, range(1, 4))
        self.lose(driven, trial)
        assert len(read_trials(driven.run.path)) == 0
        assert checkpoint.folder.exists()
        assert driven.progress.levels[LEVEL].running == 0
        (line,) = driven.view.lines
        assert "lost its process: its process was ended from outside" in line
        again = driven.trial("t2")
        driven.start(again)
        assert driven.progress.levels[LEVEL].running == 1
        driven.report(again, range(1, 7))
        driven.complete(again)
        assert (driven.row()["status"], driven.row()["epochs"]) == ("completed", 6)
        assert driven.recorder.failures == []

    def test_one_that_waits_is_interrupted_with_the_session(self, tiny_plan, tmp_path):
        driven = Driven(tiny_plan, tmp_path)
        trial = driven.trial()
        driven.start(trial)
        self.lose(driven, trial, MEMORY)
        assert "27.9 of 28.8 GB used" in driven.view.lines[0]
        assert "--max-concurrent 2 begins so" in driven.view.lines[0]
        driven.recorder.interrupt()
        assert driven.row()["status"] == "interrupted"
        assert driven.progress.levels[LEVEL].running == 0

    @pytest.mark.parametrize("started", [True, False])
    def test_one_that_is_set_aside_is_interrupted_and_keeps_its_checkpoint(self, tiny_plan, tmp_path, started):
        driven = Driven(tiny_plan, tmp_path)
        trial = driven.trial()
        if started:
            checkpoint = driven.start(trial)
        for _ in range(MOST_LOSSES):
            self.lose(driven, trial)
        row = driven.row()
        assert (row["status"], row["error"]) == ("interrupted", "its process was ended from outside, or crashed")
        assert not started or checkpoint.folder.exists()
        assert driven.recorder.failures == []

    def test_the_session_then_fails_and_says_why(self, tiny_plan, tmp_path, monkeypatch):
        driven = Driven(tiny_plan, tmp_path)
        work = driven.recorder._work
        for _ in range(MOST_LOSSES):
            work.lost.judge("t", MEMORY, 1)
        budget = SimpleNamespace(used_up=lambda: False)
        work.packing.lower = lambda: False
        monkeypatch.setattr(searching, "_execute", lambda *all: (None, driven.progress, driven.recorder))
        with pytest.raises(RuntimeError, match=r"27\.9 of 28\.8 GB.*--max-concurrent 1, and the same command"):
            searching.execute(work, budget)
