from pathlib import Path

import pytest
import yaml
from commands import REPOSITORY

from nls_tune.errors import InputError
from nls_tune.spaces.reading import load_space, shipped_spaces
from nls_tune.spaces.settings import RATE_ARMS

SPACE = """
space:
  smooth_rate: {type: float, low: -8, high: 0.8, scale: log1m, default: -1}
  warmup_epochs: {type: int, low: 0, high: 10, default: 4}
  lr: {type: float, low: 1.0e-4, high: 5.0e-2, scale: log, default: 3.0e-3}
fixed: {model: mlp}
"""
BUDGET = "budget: {trials: 20, epochs: 40, grace_epochs: 6, reduction_factor: 3}\n"


@pytest.fixture
def write(tmp_path: Path):
    def write_space(text: str | bytes) -> Path:
        path = tmp_path / "my_space.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_space


def error_of(path: str | Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_space(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# Shipped spaces


def test_every_dataset_has_a_space_of_its_name():
    assert {"twonorm", "waveform", "digits", "cifar10", "cifar100", "cifar10n", "cifar100n"} <= set(shipped_spaces())


def preset_names(name: str) -> list[str]:
    text = (REPOSITORY / "search_spaces" / f"{name}.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load(text).get("presets", {}))


@pytest.mark.parametrize("epochs", [None, 1, 2, 6])
@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name in shipped_spaces() for preset in (None, *preset_names(name))]
)
def test_every_shipped_space_can_be_searched(name, preset, epochs):
    space = load_space(name, preset=preset)
    assert space.name == name
    assert sum(space.quotas(space.budget.trials).values()) == space.budget.trials
    if epochs is not None:
        space = space.with_epochs(epochs)
        space.check_settings()
    assert 1 <= space.budget.grace_epochs <= space.budget.epochs
    for arm in RATE_ARMS:
        part = space.arm(arm)
        start = part.start([0.0, 0.1, -4.0])
        assert start
        for config in start:
            training = space.settings(part.decode(part.encode(config)), 0)
            assert (training.arm, training.epochs) == (arm, space.budget.epochs)


CIFAR = ("cifar10", "cifar100", "cifar10n", "cifar100n")


@pytest.mark.parametrize("preset", ["paper", "paper_direct"])
@pytest.mark.parametrize("name", CIFAR)
def test_the_papers_presets_run_its_14_rates_to_the_end(name, preset):
    space = load_space(name, preset=preset)
    parts = [space.arm(arm) for arm in RATE_ARMS]
    rates = [part.decode(point)["smooth_rate"] for part in parts for point in part.points()]
    paper = [0.8, 0.6, 0.4, 0.2, 0, -0.2, -0.4, -0.6, -0.8, -1, -2, -4, -6, -8]
    assert sorted(rates, reverse=True) == paper
    assert space.quotas(14) == {"ce": 1, "positive": 4, "negative": 9}
    assert space.budget.grace_epochs == space.budget.epochs


#: Of the paper's code, per preset: epochs, with their phase, learning rate, momentum and weight decay.
RECIPES = {
    "paper": [
        (40, "warmup", 0.1, 0, 0), (40, "warmup", 0.01, 0, 0), (40, "warmup", 1e-3, 0, 0),
        (100, "gls", 1e-6, 0.9, 1e-4),
    ],
    "paper_direct": [(100, "gls", 0.1, 0.9, 1e-4), (50, "gls", 0.01, 0.9, 1e-4), (50, "gls", 1e-3, 0.9, 1e-4)],
}  # fmt: skip


@pytest.mark.parametrize("preset", RECIPES)
@pytest.mark.parametrize("name", CIFAR)
def test_the_papers_presets_train_every_epoch_as_its_code_does(name, preset):
    space = load_space(name, preset=preset)
    for rate in (0, 0.2, -2):
        found = space.settings(space.default(smooth_rate=rate), 0)
        epochs = range(1, found.epochs + 1)
        plan = [
            (found.phase(e), found.learning_rate(e), found.momentum_at(e), found.weight_decay_at(e)) for e in epochs
        ]
        expected = [row for count, *row in RECIPES[preset] for _ in range(count)]
        assert [(*row,) for row in plan] == [(phase, pytest.approx(lr), *rest) for phase, lr, *rest in expected]
        assert (found.model, found.batch_size, found.crop_padding, found.flip) == ("resnet34", 128, 4, True)
        # Its GLS phase and its direct training have nesterov=True; its warm-up has no momentum.
        assert (found.optimizer, found.nesterov, found.cutout, found.clip_norm) == ("sgd", True, 0, 0)
        assert (found.norm_bias_lr_factor, found.average_spans) == (1, ())
        assert (found.padding_mode, found.alternate_flip) == ("zeros", False)
        assert (found.warmup_from == "best") == (preset == "paper")


def test_the_papers_preset_is_scaled_as_a_whole():
    space = load_space("cifar10n", preset="paper", epochs=22)
    assert (space.fixed["warmup_epochs"], space.fixed["warmup_milestones"]) == (12, (4, 8))
    assert space.budget.grace_epochs == 22


# Reading


def test_a_file_is_read_whatever_its_name_ends_in(tmp_path):
    path = tmp_path / "space"
    path.write_text(SPACE)
    space = load_space(str(path))
    assert (space.name, space.fixed, space.start) == ("space", {"model": "mlp"}, ())
    assert space.arms == {"ce": 0.25, "positive": 0.25, "negative": 0.5}
    assert space.budget.trials == 20
    assert load_space(path, preset="cpu") == space  # the file has no such preset
    # Empty sections are empty.
    path.write_text(SPACE.replace("fixed: {model: mlp}", "fixed:\nstart:\npresets:\n"))
    space = load_space(path, overrides=["budget.trials=3"])
    assert (space.fixed, space.start, space.budget.trials) == ({}, (), 3)


PRESETS = """presets:
  cpu:
    space: {warmup_epochs: {high: 3, default: 2}}
    fixed: {batch_size: 32}
    arms: {ce: 1}
    start: [{lr: 0.001}]
    budget: {epochs: 8}
  gpu: {}
"""


def test_a_preset_overrides_parts_and_leaves_the_rest(write):
    path = write(SPACE + BUDGET + PRESETS)
    cpu, gpu = load_space(path, preset="cpu"), load_space(path, preset="gpu")
    assert cpu.space["warmup_epochs"] == gpu.space["warmup_epochs"].model_copy(update={"high": 3, "default": 2})
    assert cpu.space["lr"] == gpu.space["lr"]
    assert cpu.fixed == {"model": "mlp", "batch_size": 32}
    assert cpu.arms == {"ce": 1}
    assert cpu.start == ({"lr": 0.001},)
    assert cpu.budget == gpu.budget.model_copy(update={"epochs": 8})
    assert gpu.fixed == {"model": "mlp"}
    assert gpu.budget.epochs == 40
    assert load_space(path) == gpu  # the file as it stands


OTHERS = """start: [{lr: 0.001, smooth_rate: -2}]
presets:
  fewer_2: {fixed: {lr: 0.01}}
  back-again:
    space:
      model: {type: choice, values: [mlp, cnn9], default: cnn9}
      smooth_rate: {type: choice, values: [0, -2], default: 0}
  both: {space: {lr: {type: float, low: 0.001, high: 1, default: 0.1}}, fixed: {lr: 0.01}}
  bare: {space: {model: {default: mlp}}}
"""


def test_what_a_preset_fixes_is_not_searched(write):
    path = write(SPACE + OTHERS)
    space, base = load_space(path, preset="fewer_2"), load_space(path)
    assert space.space == {name: p for name, p in base.space.items() if name != "lr"}
    assert space.fixed == {"model": "mlp", "lr": 0.01}
    assert space.start == ({"smooth_rate": -2},)


def test_what_a_preset_searches_is_not_fixed_and_another_type_replaces_a_parameter_whole(write):
    space = load_space(write(SPACE + OTHERS), preset="back-again")
    assert space.fixed == {}
    assert space.default()["model"] == "cnn9"
    assert space.space["smooth_rate"].values == (0, -2)


@pytest.mark.parametrize(
    ("preset", "fragments"),
    [
        ("both", ["lr stands in both space and fixed"]),
        ("bare", ["space.model", "type"]),
        (
            "fewer2",
            ["unknown preset 'fewer2' (did you mean 'fewer_2'?); valid: fewer_2, back-again, both, bare, gpu, cpu"],
        ),
    ],
)
def test_a_preset_that_cannot_be_applied(write, preset, fragments):
    path = write(SPACE + OTHERS)
    message = error_of(path, preset=preset)
    for fragment in (path.name, *fragments):
        assert fragment in message


def test_numbers_may_be_written_without_a_dot(write):
    # YAML 1.1 reads 1e-3 as text.
    text = SPACE.replace("low: 1.0e-4", "low: 1e-4") + BUDGET + "start: [{lr: 1e-3, smooth_rate: -2}]\n"
    space = load_space(write(text))
    config = space.arm("negative").start([])[0]
    assert space.arm("negative").encode(config)["lr"] == 0.001
    lr = "lr: {type: choice, values: [1e-3, 1e-2], default: 1e-3}"
    text = "\n".join(f"  {lr}" if line.startswith("  lr:") else line for line in SPACE.splitlines())
    part = load_space(write(text)).arm("ce")
    # What training settings give back when a run is resumed is the number.
    assert part.encode({"smooth_rate": 0.0, "warmup_epochs": 4, "lr": 0.01})["lr"] == 1


# Overrides


def test_a_setting_can_be_fixed_and_is_then_not_searched(write):
    path = write(SPACE + "start: [{lr: 0.001, warmup_epochs: 2}]\n")
    space = load_space(path, overrides=["model= cnn9 ", "flip=true", "milestones=[3, 5]", "lr=1e-2"])
    assert space.fixed == {"model": "cnn9", "flip": True, "milestones": (3, 5), "lr": 0.01}
    assert set(space.space) == {"smooth_rate", "warmup_epochs"}
    assert space.start == ({"warmup_epochs": 2},)


def test_keys_of_the_space_can_be_changed(write):
    overrides = ["lr.low=1e-5", "smooth_rate.high=0", "budget.grace_epochs=4", "arms.positive=0"]
    space = load_space(write(SPACE), overrides=overrides)
    assert space.space["lr"].low == 1e-5
    assert space.space["smooth_rate"].high == 0
    assert space.budget.grace_epochs == 4


def test_overrides_come_after_the_preset_and_each_is_given_once(write):
    path = write(SPACE + BUDGET + PRESETS)
    space = load_space(path, preset="cpu", overrides=["batch_size=16", "budget.epochs=9", "budget.grace_epochs=2"])
    assert space.fixed["batch_size"] == 16
    assert space.budget.epochs == 9
    for twice in (["lr=0.1", "lr=0.1"], ["lr.low=0.001", "lr=0.1"], ["lr=0.1", "lr.low=0.001"]):
        assert "leave one of them out" in error_of(path, overrides=twice)
    assert load_space(path, overrides=["warmup_lr=0.2", "lr=0.1"]).fixed["lr"] == 0.1


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("model", ["KEY=VALUE", "'model'"]),
        ("=3", ["KEY=VALUE", "'=3'"]),
        ("", ["KEY=VALUE", "''"]),
        ("modell=mlp", ["'modell'", "did you mean 'model'?"]),
        ("lr.lo=1", ["lr", "'lo'", "did you mean 'low'?"]),
        ("lr.values=[1]", ["lr", "unknown key 'values' (did you mean 'scale'?)"]),
        ("lrr.low=1", ["'lrr'", "did you mean 'lr'?"]),
        ("lr.low.high=1", ["lr.low.high=1", "one dot"]),
        ("lr.low=[", ["lr.low=[", "not valid YAML"]),
        ("lr.low=few", ["lr", "number", "'few'"]),
        ("lr=", ["lr", "number", "got None"]),
        ("budget.epoch=4", ["budget", "'epoch'", "did you mean 'epochs'?"]),
        ("arms.neg=1", ["arms", "'neg'", "'negative'"]),
        ("budget=3", ["'budget'"]),
        ("seed=3", ["seed", "--seed"]),
        ("smooth_rate=-1", ["smooth_rate", "searched"]),
    ],
)
def test_an_override_that_cannot_be_applied_is_named(write, override, fragments):
    message = error_of(write(SPACE + BUDGET), overrides=[override])
    for fragment in fragments:
        assert fragment in message


# What is refused


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("", ["nothing", "space, arms, fixed, start, budget"]),
        ("- 1\n- 2\n", ["list"]),
        ("space: {lr: [1, 2\n", ["not valid YAML"]),
        ("space: !!python/object:os.system {}\n", ["not valid YAML"]),
        (b"\xff\xfe\x00a", ["cannot be read"]),
        (BUDGET, ["space"]),
        ("space: 5\n", ["space", "5"]),
        (SPACE + "budgets: {}\n", ["'budgets'", "did you mean 'budget'?"]),
        (SPACE + "1: 2\n", ["'1'"]),
        (SPACE.replace("{model: mlp}", "5"), ["fixed", "5"]),
        (SPACE.replace("model: mlp", "modle: mlp"), ["fixed", "'modle'", "did you mean 'model'?"]),
        (SPACE.replace("type: int, low: 0", "type: int, lo: 0"), ["warmup_epochs", "'lo'", "did you mean 'low'?"]),
        (SPACE.replace("scale: log,", "scle: log,"), ["lr", "'scle'", "did you mean 'scale'?"]),
        (SPACE.replace("scale: log,", "scale: lg,"), ["lr", "scale", "'log'", "'lg'"]),
        (SPACE.replace("  lr: {type", "  lr: 0.1 #"), ["lr"]),
        (SPACE + "arms: {negativ: 1}\n", ["arms", "'negativ'", "'negative'"]),
        (SPACE + "arms:\n", ["arms"]),
        (SPACE + "budget: {trial: 3}\n", ["budget", "'trial'", "did you mean 'trials'?"]),
        (SPACE + "budget:\n", ["budget"]),
        (SPACE + "start: 5\n", ["start", "5"]),
        (SPACE + "start: [5]\n", ["start.0", "5"]),
        (SPACE + "start: {lr: 0.001}\n", ["start"]),
        (SPACE + "presets: [cpu]\n", ["presets", "cpu"]),
        (SPACE + "presets: {CPU: {}}\n", ["presets", "lower-case letters", "'CPU'"]),
        (SPACE + "presets: {1: {}}\n", ["presets", "lower-case letters", "got 1"]),
        (SPACE + "presets: {auto: {}}\n", ["presets", "not auto"]),
        (SPACE + "presets: {gpu: 3}\n", ["presets.gpu", "3"]),
        (SPACE + "presets: {gpu: {space: 3}}\n", ["space", "3"]),
        (SPACE + "presets: {cpu: {fixed: {modle: mlp}}}\n", ["presets.cpu", "'modle'", "did you mean 'model'?"]),
        (SPACE + "presets: {gpu: {budgt: {}}}\n", ["presets.gpu", "'budgt'", "did you mean 'budget'?"]),
        (SPACE + "presets: {gpu: {budget: {epochs: 0}}}\n", ["budget.epochs", "got 0"]),
    ],
)  # fmt: skip
def test_a_file_that_breaks_a_rule_is_named_with_the_key(write, text, fragments):
    path = write(text)
    message = error_of(path, preset="gpu")
    assert error_of(path, preset="gpu", overrides=["model=mlp"]) == message  # an override does not hide it
    for fragment in (path.name, *fragments):
        assert fragment in message


def test_a_space_that_is_not_there(tmp_path):
    assert "did you mean 'twonorm'?" in error_of("twonrm")
    assert "valid: cifar10, " in error_of("nothing like it")
    assert "does not exist" in error_of(tmp_path / "none.yaml")
    assert "is a folder" in error_of(tmp_path)
    assert "YAML file" in error_of("")
