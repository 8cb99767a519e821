"""Ctrl-C pressed once and again, with the signals themselves."""

import signal
import threading
import time
from types import SimpleNamespace

import pytest

from nls_tune.tune import interrupts as module
from nls_tune.tune.interrupts import InterruptedAgainError, Interrupts, held_back, interruptible

# The blocks below are what is tested: signals come in the middle of them.
# ruff: noqa: PT012
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers():
    """A Ctrl-C that raises, and a SIGTERM and a SIGHUP that pytest survives; both must be there again afterwards."""
    before = [signal.signal(number, signal.default_int_handler) for number in NUMBERS]
    yield
    found = [signal.getsignal(number) for number in NUMBERS]
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)
    assert found == [signal.default_int_handler] * len(NUMBERS)


def like_tune(interrupts: Interrupts | None = None) -> list[int]:
    """Set a handler as Tune does: it notes that it is to end, and puts back what was there. Then be ready."""
    noted: list[int] = []
    original = signal.getsignal(signal.SIGINT)

    def handle(number, frame):
        noted.append(number)
        signal.signal(signal.SIGINT, original)

    signal.signal(signal.SIGINT, handle)
    if interrupts is not None:
        interrupts.tune_is_ready()
    return noted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_session_is_interrupted_wherever_it_stands(number):
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(number)
        pytest.fail("went on")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_was_to_be_ignored_stays_ignored(number):
    """As nohup has it, and a script for what it starts in the background."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with interruptible(), Interrupts() as interrupts:
            noted = like_tune(interrupts)
            signal.raise_signal(number)
            with held_back():
                signal.raise_signal(number)
            assert noted == []
            signal.raise_signal(signal.SIGTERM)
            assert noted == [signal.SIGTERM]
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_what_was_to_be_ignored_is_so_again_if_tune_is_never_ready():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts():
            like_tune()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_ray_there_is_nothing_to_tell_tune():
    noted = []
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        noted = like_tune(interrupts)
        thread = threading.Thread(target=interrupts.ray_died, args=("the raylet has ended",))
        thread.start()
        thread.join()
        for _ in range(100):
            time.sleep(0.05)
    assert interrupts.died == "the raylet has ended"
    assert noted == []


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_one_tells_tune_once_and_shows_it(number):
    shown: list[str] = []
    with Interrupts(lambda: shown.append("ending")) as interrupts:
        noted = like_tune(interrupts)
        signal.raise_signal(number)
        assert (noted, shown) == ([number], ["ending"])


def test_another_one_waits_until_everything_is_saved():
    saved = None
    with pytest.raises(InterruptedAgainError), Interrupts() as interrupts:
        noted = like_tune(interrupts)
        for _ in range(4):
            signal.raise_signal(signal.SIGINT)
        saved = True
    assert saved
    assert len(noted) == 1


def test_before_a_trial_runs_there_is_nothing_to_save():
    with pytest.raises(KeyboardInterrupt) as raised, Interrupts():
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(raised.value, InterruptedAgainError)
    # Tune has taken the first one itself, just before it was ready: no trial will start.
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        noted = like_tune()
        signal.raise_signal(signal.SIGINT)
        interrupts.tune_is_ready()
        assert noted == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)


def test_what_hangs_can_be_left(monkeypatch):
    now = iter([0.0, 9.9, 10.1])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(now)))
    reached = []
    with pytest.raises(InterruptedAgainError), Interrupts() as interrupts:
        like_tune(interrupts)
        for i in range(3):
            signal.raise_signal(signal.SIGINT)
            reached.append(i)
    assert reached == [0, 1]


def test_an_error_is_not_covered_up():
    with pytest.raises(OSError, match="disk"), Interrupts() as interrupts:
        like_tune(interrupts)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise OSError("disk")


def test_a_moment_is_not_broken_into():
    done = False
    with pytest.raises(InterruptedAgainError), held_back():
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done
    with held_back():
        pass


def test_only_the_main_thread_has_signals():
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with Interrupts() as interrupts, held_back():
                interrupts.tune_is_ready()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
