"""The last training: stops where it should, goes on after a kill bit by bit, and hands over the right weights."""

import pytest
import torch

from nls_tune import TrainingSettings, load_dataset
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.schemas import ON_ALL_LABELS
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.training import final
from nls_tune.training.final import final_weights, train_to_the_end

SETTINGS = TrainingSettings(model="mlp", epochs=6, lr=0.01, batch_size=32, average_spans=(0.5, 1.0))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("twonorm", "symmetric:0.2", train_size=100, val_fraction=0.01).on_all_labels()


def spec(settings=SETTINGS, stop_at=4):
    return TrialSpec("0" * 16, "symmetric:0.2", ON_ALL_LABELS, settings, stop_at=stop_at)


def train(dataset, folder, wanted=None, said=None):
    epochs = []
    say = (lambda line: None) if said is None else said.append
    training = train_to_the_end(dataset, wanted or spec(), TrialCheckpoint(folder), CPU, report=epochs.append, say=say)
    return training, epochs


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_stops_after_its_epoch_and_goes_on_from_its_checkpoint(dataset, tmp_path, monkeypatch):
    whole, epochs = train(dataset, tmp_path / "whole")
    assert epochs == [0, 1, 2, 3, 4]
    assert (whole.epoch, len(whole.data.train_labels)) == (4, 180)
    monkeypatch.setattr(final, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(TrialCheckpoint, "save", killed_after(2))
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "killed")
    monkeypatch.undo()
    said = []
    again, epochs = train(dataset, tmp_path / "killed", said=said)
    assert epochs == [2, 3, 4]
    assert said == ["Going on after epoch 2 of 4"]
    assert same(again.model, whole.model)
    for readout in ("average:0.5", "average:1"):
        assert same(final_weights(again, readout), final_weights(whole, readout))
        assert not same(final_weights(whole, readout), whole.model)
    assert final_weights(whole, "plain") is whole.model


def killed_after(saves):
    real, done = TrialCheckpoint.save, []

    def save(self, state):
        real(self, state)
        done.append(1)
        if len(done) == saves:
            raise KeyboardInterrupt

    return save


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_taken(dataset, tmp_path):
    checkpoint = TrialCheckpoint(tmp_path)
    checkpoint.start(spec(stop_at=2))
    (tmp_path / "state.pt").write_bytes(b"another")
    said = []
    assert train(dataset, tmp_path, said=said)[1] == [0, 1, 2, 3, 4]
    assert said == []
    (tmp_path / "state.pt").write_bytes(b"damaged")
    assert train(dataset, tmp_path, said=said)[1] == [0, 1, 2, 3, 4]
    assert said[0].startswith("It is trained anew: the saved state cannot be read")


def test_a_training_that_diverges_is_said(dataset, tmp_path):
    with pytest.raises(RuntimeError, match="diverged in epoch 1 of 4"):
        train(dataset, tmp_path, spec(SETTINGS.model_copy(update={"lr": 1e30})))
