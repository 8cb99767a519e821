"""Images that are streamed from their file: the same numbers, bit by bit, as with images in memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from judged import correct_bits
from squares import squares

from nls_tune import TrainingSettings
from nls_tune.datasets import NoisyDataset
from nls_tune.datasets.mapped import STREAM_VARIABLE, MappedImages
from nls_tune.machine.limits import Memory
from nls_tune.metrics import Judging
from nls_tune.training import streaming
from nls_tune.training.data import DeviceData
from nls_tune.training.out_of_sample import predict_out_of_sample
from nls_tune.training.streaming import StreamedImages, must_stream
from nls_tune.training.training import Training

CPU = torch.device("cpu")


@pytest.fixture
def mapped(tmp_path) -> NoisyDataset:
    """The squares, as a search has them where they lie in a file."""
    data = squares(side=16)
    images = np.concatenate([data.inputs, data.test_inputs])
    order = np.random.default_rng(1).permutation(len(images))
    np.save(tmp_path / "images.npy", images[order])
    rows, shape = np.argsort(order), images.shape[1:]
    held = len(data.inputs)
    inputs, test = (MappedImages(tmp_path / "images.npy", part, shape) for part in (rows[:held], rows[held:]))
    return replace(data, inputs=inputs, test_inputs=test)


def settings(**changes) -> TrainingSettings:
    values = {
        "model": "fast_cnn_small", "epochs": 4, "warmup_epochs": 2, "smooth_rate": -0.5, "lr": 0.01, "batch_size": 21,
        "flip": True, "alternate_flip": True, "crop_padding": 2, "cutout": 3, "average_spans": [0.2],
    }  # fmt: skip
    return TrainingSettings(**{**values, **changes})


def trained(dataset: NoisyDataset, some: TrainingSettings, stream: str | None, monkeypatch) -> Training:
    if stream is not None:
        monkeypatch.setenv(STREAM_VARIABLE, stream)
    training = Training(dataset, some, judging=Judging(mirror=True))
    assert isinstance(training.data.train_inputs, StreamedImages) == (stream == "0")
    while not training.finished:
        training.run_epoch()
    return training


def facts(training: Training) -> list[object]:
    history = [replace(metrics, seconds=0.0, peak_memory_bytes=0) for metrics in training.history]
    best = training.readouts.scores(training.history)
    bits = [correct_bits(training, epoch) for epoch in range(1, training.epoch + 1)]
    mirrored = [training.readouts.mirrored(epoch) for epoch in range(1, training.epoch + 1)]
    return [history, best, bits, mirrored]


@pytest.mark.parametrize("changes", [{}, {"model": "small_cnn", "padding_mode": "reflect"}, {"batch_size": 9}])
def test_the_numbers_of_a_training_are_the_same_bit_by_bit(mapped, changes, monkeypatch):
    in_memory, held, streamed = (
        trained(dataset, settings(**changes), stream, monkeypatch)
        for dataset, stream in ((squares(side=16), None), (mapped, "1000000000"), (mapped, "0"))
    )
    assert facts(in_memory) == facts(held) == facts(streamed)
    assert any(number is not None for number in facts(streamed)[3])
    for expected, *others in zip(*(t.model.state_dict().values() for t in (in_memory, held, streamed)), strict=True):
        assert all(torch.equal(expected, other) for other in others)
    said = [t.predict_probabilities(t.data.val_inputs) for t in (in_memory, streamed)]
    assert torch.equal(*said)


def test_estimates_from_held_out_folds_are_the_same(mapped, monkeypatch):
    expected = predict_out_of_sample(squares(side=16), settings(), folds=2, device="cpu")
    monkeypatch.setenv(STREAM_VARIABLE, "0")
    found = predict_out_of_sample(mapped, settings(), folds=2, device="cpu")
    assert np.array_equal(found.probabilities, expected.probabilities)


def test_an_epoch_that_is_left_early_leaves_no_thread(mapped, monkeypatch):
    import threading

    monkeypatch.setenv(STREAM_VARIABLE, "0")
    training = Training(mapped, settings())
    before = threading.active_count()
    batches = training.batches(1)
    next(batches)
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("num_bytes", "sharing", "streams"), [(2**30, 1, False), (2**30 + 1, 1, True), (2**29, 2, False), (2**29, 3, True)]
)
def test_images_of_more_than_a_quarter_of_the_free_memory_are_streamed(num_bytes, sharing, streams, monkeypatch):
    monkeypatch.delenv(STREAM_VARIABLE, raising=False)
    monkeypatch.setattr(streaming, "memory", lambda: Memory(used=2**30, total=5 * 2**30))
    assert must_stream(num_bytes, CPU, sharing) is streams
    monkeypatch.setattr(streaming, "memory", lambda: None)
    assert must_stream(num_bytes, CPU, sharing)


def test_images_of_more_than_a_quarter_of_a_gpu_are_streamed(monkeypatch):
    monkeypatch.delenv(STREAM_VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 16 * 2**30))
    gpu = torch.device("cuda")
    assert not must_stream(2**32, gpu, 1)
    assert must_stream(2**32, gpu, 2)


def test_arrays_in_memory_are_never_streamed(monkeypatch):
    monkeypatch.setenv(STREAM_VARIABLE, "0")
    assert isinstance(DeviceData.load(squares(side=16), "cpu").train_inputs, torch.Tensor)
