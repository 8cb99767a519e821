"""What an epoch is going to take, asked of the machine by processes of its own."""

import json
import subprocess
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nls_tune.session import forecast
from nls_tune.spaces.reading import load_space
from nls_tune.training.speed_probe import probe


def plan_of(images: int, shape: tuple[int, ...] = (3, 32, 32)) -> Any:
    """As much of a plan as is read: ten trials of some images."""
    space = load_space("digits").with_epochs(8)
    dataset = SimpleNamespace(
        num_train=images, num_val=1000, test_labels=np.zeros(500), input_shape=shape, num_classes=10
    )
    return SimpleNamespace(
        space=space, levels=(SimpleNamespace(dataset=dataset),), num_trials=10,
        training_settings=lambda config: space.settings(config, 0),
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch) -> list[dict[str, Any]]:
    questions: list[dict[str, Any]] = []

    def run(command: list[str], *, input: str, **_: Any) -> SimpleNamespace:
        questions.append(json.loads(input))
        return SimpleNamespace(stdout=f'a warning\n{{"train": {0.001 * len(questions)}, "evaluate": 0.0002}}\n')

    monkeypatch.setattr(forecast.subprocess, "run", run)
    return questions


def test_an_epoch_takes_the_mean_over_as_many_processes_as_trials_run_at_once(asked):
    found = forecast.probed_epoch(plan_of(50_000), slots=2, threads=3)
    assert found is not None
    assert found.seconds == pytest.approx(50_000 * 0.0015 + 1500 * 0.0002)
    assert [(question["threads"], question["input_shape"]) for question in asked] == [(3, [3, 32, 32])] * 2
    assert asked[0]["settings"]["model"] == "mlp"


@pytest.mark.parametrize("plan", [plan_of(5_000), plan_of(50_000, (20,))])
def test_short_searches_and_flat_inputs_ask_nothing(asked, plan):
    assert forecast.probed_epoch(plan, 2, 1) is None
    assert asked == []


def test_a_machine_that_does_not_answer_gives_no_time(monkeypatch):
    def run(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("python", 1)

    monkeypatch.setattr(forecast.subprocess, "run", run)
    assert forecast.probed_epoch(plan_of(50_000), 2, 1) is None


def test_the_probe_trains_what_it_is_asked_for():
    space = load_space("digits")
    settings = space.settings(space.default(), 0).model_dump(mode="json")
    found = probe({"settings": settings, "num_classes": 10, "input_shape": [1, 8, 8], "threads": 1})
    assert 0 < found["evaluate"] < found["train"] < 0.1
