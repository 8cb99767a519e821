"""What a trial reports of its weights and of their averages, against a slow computation beside it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from judged import correct_bits
from squares import squares
from torch import nn

from nls_tune.datasets import NoisyDataset, load_dataset
from nls_tune.metrics import Judging
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.compiling import Compiler
from nls_tune.training.data import DeviceData
from nls_tune.training.report import TrialReport
from nls_tune.training.training import Training
from nls_tune.training.trial import Trial, Workplace

SPANS = (1.0, 0.3)


@pytest.fixture(scope="module")
def dataset() -> NoisyDataset:
    found = load_dataset("twonorm", "symmetric:0.3", train_size=160, val_fraction=0.1)
    assert found.test_inputs is not None
    assert found.test_labels is not None
    small = {"val_indices": found.val_indices[:200], "test_inputs": found.test_inputs[:150]}
    return replace(found, **small, test_labels=found.test_labels[:150])


def settings(**changes: Any) -> TrainingSettings:
    values = {
        "model": "mlp", "epochs": 8, "warmup_epochs": 3, "smooth_rate": -0.5, "lr": 0.05, "warmup_lr": 0.05,
        "batch_size": 20, "average_spans": SPANS,
    }  # fmt: skip
    return TrainingSettings(**{**values, **changes})


def right(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Which samples a network gets right, all at once."""
    with torch.no_grad():
        return (model.eval()(inputs).argmax(1) == labels).numpy()


class Watched:
    """A training of flat inputs whose networks are looked at after every epoch: plain weights first, then averages."""

    def __init__(self, dataset: NoisyDataset, trial: TrainingSettings, **judging: Any) -> None:
        self.training = Training(dataset, trial, judging=Judging(**judging))
        data, self.val, self.test = self.training.data, [], []
        while not self.training.finished:
            self.training.run_epoch()
            models = [self.training.model, *self.training.readouts.averages.models]
            self.val.append([right(model, data.val_inputs, data.val_labels) for model in models])
            self.test.append([right(model, data.test_inputs, data.test_labels) for model in models])

    def slow_best(self, readouts: range, epochs: int, last: bool = False) -> tuple[int, int, float] | None:
        """The readout, epoch and value of the highest smoothed validation accuracy; earlier ones win ties."""
        first = 1 if self.training.settings.smooth_rate == 0 else self.training.settings.warmup_epochs + 1
        best = None
        for readout in readouts:
            accuracies = [float(found[readout].mean()) for found in self.val]
            for epoch in [epochs] if last else range(first, epochs + 1):
                value = accuracies[epoch - 1]
                if not last and epoch > 1:
                    value = (value + accuracies[epoch - 2]) / 2
                if epoch >= first and (best is None or value > best[2] + 1e-12):
                    best = readout, epoch, value
        return best


CASES = {
    "rate": settings(),
    "ce": settings(smooth_rate=0.0),
    "no warm-up": settings(warmup_epochs=0, smooth_rate=0.2),
    "memorising": settings(smooth_rate=0.0, lr=0.5, epochs=14, warmup_epochs=1),
    "one span": settings(average_spans=(0.5,)),
}


@pytest.fixture(scope="module", params=CASES)
def watched(request: pytest.FixtureRequest, dataset: NoisyDataset) -> Watched:
    return Watched(dataset, CASES[request.param], objective="best")


class TestBest:
    def test_both_scores_are_those_of_the_best_epochs_whatever_has_been_trained(self, watched):
        training = watched.training
        spans = training.settings.average_spans
        for epochs in range(1, training.epoch + 1):
            found = training.readouts.scores(training.history[:epochs])
            ranges = range(1), range(1, 1 + len(spans))
            for score, expected in zip(found, (watched.slow_best(r, epochs) for r in ranges), strict=True):
                if expected is None:
                    assert score is None
                    continue
                readout, epoch, value = expected
                assert score.readout == ("plain" if readout == 0 else f"average:{spans[readout - 1]:g}")
                assert (score.epoch, score.val.accuracy) == (epoch, pytest.approx(value))
                then = watched.slow_best(range(1), epoch)
                if readout > 0 and then is not None and value <= then[2]:
                    assert score.test is None  # where the weights as they are lead nobody asks
                    assert value <= found[0].val.accuracy
                    continue
                assert score.test.accuracy == pytest.approx(watched.test[epoch - 1][readout].mean())
                if readout > 0:
                    bits = tuple(np.packbits(w[epoch - 1][readout]).tobytes() for w in (watched.val, watched.test))
                    assert correct_bits(training.readouts, epoch) == bits

    def test_the_validation_accuracies_of_all_averages_are_in_the_metrics(self, watched):
        for metrics, found in zip(watched.training.history, watched.val, strict=True):
            assert metrics.average_val_accuracies == tuple(one.mean() for one in found[1:])  # to the last bit, for ties

    def test_averages_matter_here(self, watched):
        """Otherwise the tests above compare one number with itself."""
        plain, average = watched.training.readouts.scores(watched.training.history)
        assert (plain.epoch, plain.val.accuracy) != (average.epoch, average.val.accuracy)


def test_test_samples_do_not_decide(dataset):
    other = replace(dataset, test_labels=1 - dataset.test_labels)
    for trial in CASES.values():
        first, second = (Watched(data, trial, objective="best").training for data in (dataset, other))
        for one, two in zip(*(t.readouts.scores(t.history) for t in (first, second)), strict=True):
            assert replace(one, test=None) == replace(two, test=None)
            if one.test is not None:
                assert one.test.accuracy == pytest.approx(1 - two.test.accuracy)


def test_no_epoch_of_the_warm_up_counts_for_a_rate_and_each_does_for_ce(dataset):
    harmful = {"lr": 1e-9, "warmup_epochs": 6, "warmup_lr": 0.4}  # what comes after the warm-up changes nothing
    rate = Watched(dataset, settings(**harmful, smooth_rate=-0.5), objective="best").training
    ce = Watched(dataset, settings(**harmful, smooth_rate=0.0), objective="best").training
    assert min(score.epoch for score in rate.readouts.scores(rate.history)) > 6
    assert min(score.epoch for score in ce.readouts.scores(ce.history)) <= 6
    assert rate.readouts.scores(rate.history[:6]) == (None, None)
    assert ce.readouts.scores(ce.history[:6]) != (None, None)


def test_where_the_last_epoch_counts_averages_are_judged_there_alone(dataset):
    watched = Watched(dataset, settings(), objective="last")
    training = watched.training
    assert [len(metrics.average_val_accuracies) for metrics in training.history] == [0] * 7 + [2]
    for epochs in range(4, 8):
        plain, average = training.readouts.scores(training.history[:epochs])
        assert (plain.epoch, average) == (epochs, None)
    plain, average = training.readouts.scores(training.history)
    assert (plain.epoch, plain.val.accuracy) == (8, training.history[-1].val_accuracy)
    readout, epoch, value = watched.slow_best(range(1, 3), 8, last=True)
    assert average.readout == f"average:{SPANS[readout - 1]:g}"
    assert (average.epoch, average.val.accuracy) == (epoch, value)
    assert average.test.accuracy == pytest.approx(watched.test[-1][readout].mean())


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_the_schedule_says_which_epoch_counts_where_nobody_does(dataset, schedule):
    training = Watched(dataset, settings(schedule=schedule, lr=0.1)).training
    expected = [2] * 8 if schedule == "constant" else [0] * 7 + [2]
    assert [len(metrics.average_val_accuracies) for metrics in training.history] == expected


def test_without_a_test_set_nothing_is_said_of_it(dataset):
    data = replace(dataset, test_inputs=None, test_labels=None)
    training = Training(data, settings(), judging=Judging("best", mirror=True))
    while not training.finished:
        training.run_epoch()
    for score in training.readouts.scores(training.history):
        assert score.test is None
        assert training.readouts.mirrored(score.epoch) is None
    _, average = training.readouts.scores(training.history)
    assert correct_bits(training.readouts, average.epoch)[1] is None


def test_what_diverged_counts_with_what_was_before(dataset):
    watched = Watched(dataset, settings(smooth_rate=-8.0, lr=0.1, epochs=60), objective="best")
    training = watched.training
    assert training.diverged
    assert training.epoch > 4
    assert training.history[-1].average_val_accuracies == ()
    plain, average = training.readouts.scores(training.history)
    assert watched.slow_best(range(1), training.epoch - 1)[1:] == (plain.epoch, pytest.approx(plain.val.accuracy))
    readout, epoch, _ = watched.slow_best(range(1, 3), training.epoch - 1)
    assert (average.readout, average.epoch) == (f"average:{SPANS[readout - 1]:g}", epoch)
    last = Watched(dataset, training.settings, objective="last").training
    assert last.readouts.scores(last.history)[1] is None


# Mirror images


@pytest.mark.parametrize("trial", [{}, {"smooth_rate": 0.0}, {"lr": 1e-9}, {"average_spans": ()}], ids=str)
def test_the_accuracy_over_mirror_images_is_that_of_the_mean_probability(trial):
    data = squares(60, 40, 50)
    given = settings(model="small_cnn", precision="float32", epochs=6, warmup_epochs=2, lr=0.05, batch_size=10)
    training = Training(data, given.model_copy(update=trial), judging=Judging("best", mirror=True))
    pixels = data.test_inputs.astype(np.float64) / 255
    both = [(p - data.input_mean[:, None, None]) / data.input_std[:, None, None] for p in (pixels, pixels[..., ::-1])]
    expected: dict[int, list[float]] = {}
    while not training.finished:
        epoch = training.run_epoch().epoch
        expected[epoch] = []
        for model in (training.model, *training.readouts.averages.models):
            with torch.no_grad():
                logits = [model.eval()(torch.from_numpy(x.astype(np.float32))) for x in both]
            mean = sum(one.softmax(1) for one in logits)
            expected[epoch].append(float((mean.argmax(1).numpy() == data.test_labels).mean()))
    names = ["plain", *(f"average:{span:g}" for span in training.settings.average_spans)]
    for epochs in range(3, 7):
        found = [score for score in training.readouts.scores(training.history[:epochs]) if score is not None]
        best = max(found, key=lambda score: score.val.accuracy)
        assert training.readouts.mirrored(best.epoch) == pytest.approx(expected[best.epoch][names.index(best.readout)])


def test_without_mirror_images_none_are_looked_at(dataset):
    training = Watched(dataset, settings()).training
    assert [training.readouts.mirrored(epoch) for epoch in range(1, 9)] == [None] * 8


# Reports


def reports(dataset: NoisyDataset, trial: TrainingSettings, folder: Any, **changes: Any) -> list[TrialReport]:
    """The reports of a trial, from a checkpoint or the start to its end, one at each epoch."""
    judging = changes.pop("judging", Judging("best"))
    spec = TrialSpec("abc", "clean", "search", trial, None, tuple(range(1, trial.epochs)), **changes)
    device = torch.device("cpu")
    place = Workplace(device, "a CPU", Compiler("off"), judging, folder, None, ())
    running, found = Trial(spec, dataset, DeviceData.load(dataset, device), place), []
    while not (found and found[-1].done):
        report = running.train()
        found += [report] if report.new_epochs else []
    return found


def test_a_report_takes_the_better_of_both_and_plain_weights_on_ties(dataset, tmp_path):
    seen = set()
    for name, trial in [*CASES.items(), ("still", settings(lr=1e-30, warmup_lr=1e-30))]:
        for report in reports(dataset, trial, tmp_path / name):
            if report.best_epoch is None:
                assert (report.readout, report.plain, report.average) == (None, None, None)
                continue
            scores = [report.plain, report.average]
            best = scores[0] if scores[0].val.accuracy >= scores[1].val.accuracy else scores[1]
            found = (report.readout, report.best_epoch, report.best_value, report.best)
            assert found == (best.readout, best.epoch, best.val.accuracy, best)
            bits = [np.frombuffer(b, np.uint8) for b in (report.val_correct_at_best, report.test_correct_at_best)]
            val, test = (np.unpackbits(b, count=n) for b, n in zip(bits, (200, 150), strict=True))
            assert test.mean() == pytest.approx(best.test.accuracy)
            if report.best_epoch == 1:
                assert val.mean() == pytest.approx(best.val.accuracy)
            seen.add((best.readout.split(":")[0], scores[0].val.accuracy == scores[1].val.accuracy))
    assert {("average", False), ("plain", True)} <= seen  # otherwise nothing was compared


def test_a_report_goes_through_tune_as_plain_values(dataset, tmp_path):
    for report in reports(dataset, settings(), tmp_path):
        result = report.to_result()
        assert TrialReport.from_result({**result, "trial_id": "added by Tune"}) == report


def test_a_trial_on_all_labels_says_nothing_of_averages(dataset, tmp_path):
    data = replace(dataset, train_indices=np.concatenate([dataset.train_indices, dataset.val_indices]))
    last = reports(data, settings(), tmp_path, stop_at=5)[-1]
    assert (last.epoch, last.readout, last.plain, last.average, last.best_epoch) == (5, None, None, None, None)
    assert [metrics.average_val_accuracies for metrics in last.new_epochs] == [()] * len(last.new_epochs)


def test_a_trial_on_all_labels_is_tested_with_the_weights_that_it_is_to_be_used_with(dataset, tmp_path):
    every = reports(dataset, settings(), tmp_path / "plain", stop_at=5, readout=f"average:{SPANS[0]:g}")
    assert [report.average for report in every[:-1]] == [None] * (len(every) - 1)
    last = every[-1]
    assert (last.readout, last.best_epoch, last.plain) == (None, None, None)  # nothing is chosen
    assert (last.average.readout, last.average.epoch) == (f"average:{SPANS[0]:g}", 5)
    training = Training(dataset, settings())
    for _ in range(5):
        training.run_epoch()
    model, data = training.readouts.averages.models[0], training.data
    assert last.average.test == training.evaluator.judge(model, data.test_inputs, data.test_labels)[1].scores
    assert last.average.test != last.new_epochs[-1].test
