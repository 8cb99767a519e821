"""Networks in a plan: tried in a process of their own, and named by what they are in all that follows."""

import json

import pytest
from commands import environment

from nls_tune.errors import InputError
from nls_tune.plan import models
from nls_tune.plan.models import check_models
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.spaces.reading import load_space

CODE = """
import os, time
from torch import nn

print("a user's own words")

def build(num_classes, input_shape):
    return nn.Linear(input_shape[0], num_classes)

def ends(num_classes, input_shape):
    os.write(2, b"out of luck\\n")
    os._exit(7)

def waits(num_classes, input_shape):
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    (tmp_path / "mine.py").write_text(CODE)


def test_networks_of_this_package_need_no_process(monkeypatch):
    monkeypatch.setattr(models, "_ask", None)
    space = load_space("twonorm", overrides=["model=linear"])
    assert check_models(space, 2, (20,)) is space
    with pytest.raises(InputError, match="unknown model 'linar'"):
        check_models(load_space("twonorm", overrides=["model=linar"]), 2, (20,))


def test_a_plan_names_a_users_network_by_what_it_is():
    settings = check_search_settings(dataset="twonorm", overrides=("model=mine:build",), num_trials=3, train_size=200)
    plan = make_plan(settings, 0)
    name, _, fingerprint = plan.training_settings(plan.space.default()).model.partition("@")
    assert (name, len(fingerprint)) == ("mine:build", 8)
    assert plan.identity().model_dump(mode="json")["space"]["fixed"]["model"] == f"mine:build@{fingerprint}"


def test_all_places_of_a_space_that_name_a_network_get_its_fingerprint(monkeypatch, tmp_path):
    (tmp_path / "space.yaml").write_text(
        "space:\n"
        "  smooth_rate: {type: float, low: -1, high: 0.5, default: 0}\n"
        "  model: {type: choice, values: [mlp, 'mine:build'], default: 'mine:build'}\n"
        "start: [{model: 'mine:build'}]\n"
    )
    asked = []
    answer = {"models": {"mlp": "mlp", "mine:build": "mine:build@12345678"}, "weights": {}}
    monkeypatch.setattr(models, "_ask", lambda question, model: asked.append(question) or answer)
    space = check_models(load_space("space.yaml"), 2, (20,))
    assert space.default()["model"] == "mine:build@12345678"
    assert list(space.space["model"].values) == ["mlp", "mine:build@12345678"]
    assert space.start[0]["model"] == "mine:build@12345678"
    expected = {"models": ["mlp", "mine:build"], "weights": [None], "freeze": False, "num_classes": 2}
    assert asked == [{**expected, "input_shape": (20,)}]
    weighted = load_space("space.yaml", overrides=["weights=w.pth"])
    with pytest.raises(InputError, match="--weights are those of one network, the space has 2"):
        check_models(weighted, 2, (20,))


def test_a_process_that_ends_or_does_not_is_said_in_one_line(monkeypatch):
    def refused(model):
        with pytest.raises(InputError) as error:
            check_models(load_space("twonorm", overrides=[f"model={model}"]), 2, (20,))
        return str(error.value)

    assert refused("mine:ends") == "model 'mine:ends' cannot be built: its process ended (out of luck)"
    monkeypatch.setattr(models, "_PATIENCE_SECONDS", 0.5)
    assert "model 'mine:waits' is not built and tried within 0.5 s" in refused("mine:waits")


def test_weights_are_named_by_their_content_wherever_they_lie(tmp_path):
    import torch

    found = []
    for name in ("one.pth", "two.pth"):
        torch.save({"1.weight": torch.ones(2, 20), "1.bias": torch.zeros(2)}, tmp_path / name)
        space = load_space("twonorm", overrides=["model=linear", f"weights={name}", "freeze=true"])
        settings = check_models(space, 2, (20,)).settings(space.default(), 0)
        assert settings.weights.startswith(f"{tmp_path}/{name}@")
        found.append(json.dumps(settings.identity()["weights"]))
    assert settings.weights.endswith(settings.identity()["weights"])
    assert settings.warmup_settings()["freeze"] is True
