"""Weights from files: read as tensors, fitted by name, refused in one line."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nls_tune.errors import InputError
from nls_tune.training.models import build_model
from nls_tune.training.weights import load_weights_file, with_fingerprint


def network(classes=2, seed=0, **names):
    torch.manual_seed(seed)
    return nn.ModuleDict({"trunk": nn.Linear(3, 4), "head": nn.Linear(4, classes), **names})


@pytest.mark.parametrize("kind", ["pth", "safetensors", "in a checkpoint"])
def test_weights_come_from_a_file(kind, tmp_path):
    stored, other = network(seed=1), network()
    path = tmp_path / f"weights@2.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(stored.state_dict(), path)
    else:
        values = stored.state_dict()
        torch.save({"epoch": 3, "model": values} if kind == "in a checkpoint" else values, path)
    load_weights_file(other, with_fingerprint(str(path)))
    assert all(torch.equal(a, b) for a, b in zip(stored.parameters(), other.parameters(), strict=True))


def test_the_last_layer_may_have_other_classes_or_be_missing(tmp_path):
    path = tmp_path / "w.pth"
    for drop in (False, True):
        stored = network(classes=7, seed=1).state_dict()
        torch.save({k: v for k, v in stored.items() if not (drop and k.startswith("head"))}, path)
        mine, fresh = network(), network()
        load_weights_file(mine, str(path))
        assert torch.equal(mine["trunk"].weight, stored["trunk.weight"])
        assert torch.equal(mine["head"].weight, fresh["head"].weight)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    for stored, said in (
        ({"trunk.weight": torch.zeros(4, 5), "trunk.bias": torch.zeros(4)}, "another shape of 'trunk.weight'"),
        ({"trunk.weight": torch.zeros(4, 3)}, "no 'trunk.bias'"),
        ({**network().state_dict(), "extra": torch.zeros(1)}, "an unknown 'extra'"),
    ):
        torch.save(stored, path)
        with pytest.raises(InputError, match=f"does not fit the network: it has {said}"):
            load_weights_file(network(), str(path))


def test_files_that_cannot_be_read(tmp_path):
    path, cut = tmp_path / "w.pth", tmp_path / "w.safetensors"
    with pytest.raises(InputError, match=r"w\.pth cannot be read \(No such file"):
        with_fingerprint(str(path))
    path.write_bytes(b"no weights")
    save_file(network().state_dict(), cut)
    cut.write_bytes(cut.read_bytes()[:-3])
    for file, said in ((path, ""), (cut, "")):
        with pytest.raises(InputError, match=rf"{file.name} cannot be read \(.*{said}"):
            load_weights_file(network(), str(file))
    torch.save(network(), path)  # a whole pickled network is code
    with pytest.raises(InputError, match="cannot be read"):
        load_weights_file(network(), str(path))
    torch.save({"trunk.weight": "text"}, path)
    with pytest.raises(InputError, match="other things than tensors"):
        load_weights_file(network(), str(path))


def test_a_file_that_changed_since_the_search_began_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(build_model("linear", num_classes=2, input_shape=(3,)).state_dict(), path)
    named = with_fingerprint(str(path))
    assert build_model("linear", num_classes=2, input_shape=(3,), weights=named)
    torch.save({}, path)
    with pytest.raises(InputError, match="has been changed since the search began"):
        build_model("linear", num_classes=2, input_shape=(3,), weights=named)
