"""Which trials are trained together: how they are divided, and what is refused before a search starts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.errors import InputError
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.spaces.batching import MOST_TOGETHER, make_batches
from nls_tune.spaces.settings import TrainingSettings


def config(number: int, data: str = "a", stage: str = "confirm", **settings: Any) -> dict[str, Any]:
    values = TrainingSettings(**{"model": "mlp", "lr": 0.001 * (number + 1), "seed": number, **settings})
    return {"trial_id": f"{number}", "data": data, "stage": stage, "settings": values.model_dump(mode="json")}


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=120), st.integers(1, 12))
def test_batches_are_even_and_leave_no_slot_idle(data, slots):
    configs = [config(i, name) for i, name in enumerate(data)]
    batches = make_batches(configs, slots)
    # Each trial once, with trials on its data only, in their order; the first of all come first.
    assert sorted(int(c["trial_id"]) for batch in batches for c in batch) == list(range(len(data)))
    for batch in batches:
        assert {c["data"] for c in batch} == {batch[0]["data"]}
        assert 1 <= len(batch) <= MOST_TOGETHER
    for name in set(data):
        mine = [batch for batch in batches if batch[0]["data"] == name]
        order = [int(c["trial_id"]) for batch in mine for c in batch]
        assert order == sorted(order)
        assert max(map(len, mine)) - min(map(len, mine)) <= 1
    firsts = [batch[0]["data"] for batch in batches[: len(set(data))]]
    assert len(set(firsts)) == len(firsts)
    assert len(batches) % slots == 0 or all(len(batch) == 1 for batch in batches)


def test_no_more_batches_than_the_slots_ask_for():
    assert [len(batch) for batch in make_batches([config(i) for i in range(16)], 1)] == [16]
    assert [len(batch) for batch in make_batches([config(i) for i in range(17)], 1)] == [8, 9]
    assert [len(batch) for batch in make_batches([config(i) for i in range(15)], 2)] == [7, 8]
    assert make_batches([], 2) == []


@pytest.mark.parametrize("other", [{"stage": "confirm_all"}, {"weight_decay": 0.1}, {"batch_size": 64}, {"epochs": 7}])
def test_what_cannot_be_one_model_is_apart(other):
    batches = make_batches([config(0), config(1, **other), config(2), config(3, **other)], 2)
    assert [[c["trial_id"] for c in batch] for batch in batches] == [["0", "2"], ["1", "3"]]


@pytest.mark.parametrize(
    ("given_settings", "gpus", "parts"),
    [
        ({"confirm_seeds": 0}, 0, ["--vectorize needs a confirmation", "--confirm-seeds is 0", "raise it"]),
        ({"overrides": ("optimizer=adamw",)}, 0, ["--vectorize takes optimizer sgd", "adamw", "--set optimizer=sgd"]),
        ({"dataset": "digits"}, 0, ["--vectorize takes mlp on a CPU", "small_cnn", "--model mlp"]),
        ({"dataset": "digits", "overrides": ("model=resnet18",)}, 1, ["mlp or small_cnn on a GPU", "resnet18"]),
    ],
)
def test_what_cannot_be_batched_is_said_before_the_start(given_settings, gpus, parts):
    with pytest.raises(InputError) as raised:
        make_plan(check_search_settings(vectorize=True, **given_settings), gpus, progress=False)
    assert "\n" not in str(raised.value)
    for part in parts:
        assert part in str(raised.value)


def test_a_run_may_be_resumed_with_and_without():
    plans = [make_plan(check_search_settings(vectorize=flag, train_size=200), 0, progress=False) for flag in (0, 1)]
    assert plans[0].identity() == plans[1].identity()
    make_plan(check_search_settings(dataset="digits", preset="cpu", vectorize=True), 1, progress=False)
