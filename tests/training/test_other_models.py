"""Networks of users, plug-ins and libraries: built, tried on two samples, named by what they are; or refused."""

import sys
import types

import pytest
import torch
from torch import nn

from nls_tune.errors import InputError
from nls_tune.training.model_check import check
from nls_tune.training.models import build_model
from nls_tune.training.other_models import _source

CODE = """
import torch
from torch import nn

def build(num_classes, input_shape):  # a comment
    return nn.Sequential(nn.Linear(input_shape[0], 4), nn.ReLU(), nn.Linear(4, num_classes))

def wide(num_classes, input_shape):
    return nn.Linear(input_shape[0], num_classes + 1)

def fails(num_classes, input_shape):
    raise RuntimeError("no luck")

def text(num_classes, input_shape):
    return "network"

class Net(nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.trunk = nn.Linear(input_shape[0], 4)
        self.last = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.last(self.trunk(x).relu())

class Endless(Net):
    def forward(self, x):
        return super().forward(x) / 0

class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()

class Strided(nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 36, num_classes)

    def forward(self, x):
        return self.fc(self.conv(x).view(len(x), -1))

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a user's module into the current folder; return its name, which no other test has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    names: list[str] = []

    def write(code: str = CODE) -> str:
        name = f"own_{tmp_path.name.translate(str.maketrans('-[]', '___'))}_{len(names)}"
        (tmp_path / f"{name}.py").write_text(code)
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)
    _source.cache_clear()


def ask(model, shape=(20,), *, weights=None, freeze=False, num_classes=2):
    question = {"models": [model], "weights": [weights], "freeze": freeze}
    return check({**question, "num_classes": num_classes, "input_shape": shape})


def test_a_users_network_is_built_for_classes_and_inputs_and_named_by_what_it_is(own):
    model = f"{own()}:build"
    named = ask(model)["models"][model]
    assert named.startswith(f"{model}@")
    network = build_model(named, num_classes=2, input_shape=(20,))
    assert [tuple(p.shape) for p in network.parameters()] == [(4, 20), (4,), (2, 4), (2,)]
    assert ask(f"{model[:-5]}Net")["models"]  # a class is a function that returns a network


def test_the_fingerprint_is_that_of_structure_and_code_without_comments(own):
    codes = [CODE, CODE.replace("  # a comment", ""), CODE.replace("nn.ReLU", "nn.GELU"), CODE + "LATER = 1\n"]
    found = [ask(f"{own(code)}:build")["models"].popitem()[1].rpartition("@")[2] for code in codes]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_code_that_changed_since_the_search_began_is_refused(own):
    model = f"{own()}:build"
    with pytest.raises(InputError, match=f"{model}' is another one than when the search began .* then 12345678"):
        build_model(f"{model}@12345678", num_classes=2, input_shape=(20,))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("bild", "unknown function of {} 'bild' (did you mean 'build'?)"),
        ("number", "must be a function, got int"),
        ("fails", "cannot be built: RuntimeError: no luck ({}.py, line 12)"),
        ("text", "must be an nn.Module, got str"),
        ("wide", "must return logits of shape (N, 2), got (2, 3) for 2 samples"),
        ("Endless", "not finite"),
        ("Detached", "cannot take samples of shape (20,): RuntimeError: element 0 of tensors does not require grad"),
    ],
)
def test_what_is_wrong_with_a_users_network_is_said_in_one_line(own, function, said):
    name = own()
    error = ask(f"{name}:{function}")["error"]
    assert said.format(name) in error
    assert "\n" not in error


def test_images_come_in_the_order_of_a_trial_so_that_a_view_fails_here(own):
    assert "view size is not compatible" in ask(f"{own()}:Strided", (3, 8, 8))["error"]
    assert "models" in ask(f"{own(CODE.replace('.view', '.reshape'))}:Strided", (3, 8, 8))


def test_a_module_that_is_not_there_or_cannot_be_imported(own):
    assert "there is no module 'no_such_module' in" in ask("no_such_module:build")["error"]
    for code, said in (
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def build(:", "SyntaxError: invalid syntax"),
        ("1 / 0", "ZeroDivisionError: division by zero ("),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ):
        assert said in ask(f"{own(code)}:build")["error"]


def test_a_frozen_network_must_say_what_its_last_layer_is(own):
    assert "name it head, fc or classifier" in ask(f"{own()}:Net", freeze=True)["error"]
    assert "models" in ask(f"{own(CODE.replace('self.last', 'self.head'))}:Net", freeze=True)


def write_plugin(folder, name, code, attribute="build"):
    """Write an installed package: a module, and the metadata that pip writes."""
    (folder / f"{name}_plugin.py").write_text(code)
    metadata = folder / f"{name}_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[nls_tune.models]\n{name} = {name}_plugin:{attribute}\n")


def test_a_plug_in_brings_networks_by_name(own, tmp_path):
    sys.path.insert(0, str(tmp_path))
    write_plugin(tmp_path, "plugged", CODE)
    write_plugin(tmp_path, "broken", CODE, "fails")
    try:
        named = ask("plugged")["models"]["plugged"]
        assert named.startswith("plugged@")
        assert build_model(named, num_classes=2, input_shape=(20,))(torch.zeros(2, 20)).shape == (2, 2)
        assert "model 'broken' cannot be built: RuntimeError: no luck (broken_plugin.py" in ask("broken")["error"]
        error = ask("plugd")["error"]
        assert "unknown model 'plugd' (did you mean 'plugged'?)" in error
        assert "mlp" in error
    finally:
        for name in ("plugged_plugin", "broken_plugin"):
            sys.modules.pop(name, None)


def test_torchvision_has_its_networks(monkeypatch):
    named = ask("torchvision:squeezenet1_1", (3, 32, 32), num_classes=5)["models"].popitem()[1]
    assert named.startswith("torchvision:squeezenet1_1@")
    assert "unknown model of torchvision 'resnet19' (did you mean 'resnet1" in ask("torchvision:resnet19")["error"]
    assert "to have 3 channels, but got 1" in ask("torchvision:squeezenet1_1", (1, 32, 32))["error"]


def test_default_weights_of_torchvision_go_into_all_but_the_classifier(monkeypatch):
    from torchvision.models import SqueezeNet1_1_Weights as Weights
    from torchvision.models import squeezenet1_1

    torch.manual_seed(1)
    stored = squeezenet1_1(weights=None)  # 1,000 classes
    monkeypatch.setattr(Weights, "get_state_dict", lambda self, **options: stored.state_dict())
    model = "torchvision:squeezenet1_1"
    assert ask(model, (3, 32, 32), weights="default", freeze=True)["weights"] == {"default": "default@IMAGENET1K_V1"}
    network = build_model(model, num_classes=5, input_shape=(3, 32, 32), weights="default@IMAGENET1K_V1")
    expected = stored.state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected[name]) == (not name.startswith("classifier")), name
    with pytest.raises(InputError, match="this torchvision has no weights IMAGENET1K_V9 of squeezenet1_1"):
        build_model(model, num_classes=5, input_shape=(3, 32, 32), weights="default@IMAGENET1K_V9")


def test_weights_that_cannot_be_downloaded_are_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        "socket.getaddrinfo", lambda *arguments, **options: (_ for _ in ()).throw(OSError("no network"))
    )
    error = ask("torchvision:squeezenet1_1", (3, 32, 32), weights="default")["error"]
    assert "cannot be downloaded from https://" in error
    assert "give the file with --weights FILE" in error
    assert "\n" not in error


def test_timm_is_asked_for_its_networks_and_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "needs the package timm, which is not installed: pip install 'nls-tune[timm]'" in ask("timm:tiny")["error"]

    def create_model(name, *, pretrained, num_classes, in_chans):
        network = nn.Sequential(nn.Flatten(), nn.Linear(in_chans * 64, num_classes))
        network.pretrained_cfg = {"tag": "a1_in1k"}
        if pretrained:
            nn.init.ones_(network[1].weight)
        return network

    timm = types.SimpleNamespace(
        create_model=create_model, is_model=lambda name: name == "tiny", list_models=lambda *pattern: ["tiny"]
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    assert ask("timm:tiny", (1, 8, 8), weights="default")["weights"] == {"default": "default@a1_in1k"}
    assert "unknown model of timm 'tinny' (did you mean 'tiny'?)" in ask("timm:tinny", (1, 8, 8))["error"]
    network = build_model("timm:tiny", num_classes=2, input_shape=(1, 8, 8), weights="default@a1_in1k")
    assert network[1].weight.eq(1).all()
    with pytest.raises(InputError, match="this timm has no weights other of tiny"):
        build_model("timm:tiny", num_classes=2, input_shape=(1, 8, 8), weights="default@other")
