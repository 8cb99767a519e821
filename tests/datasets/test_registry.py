import pickle

import numpy as np
import pytest

from nls_tune.datasets import DATASETS, check_level, dataset_info
from nls_tune.errors import InputError
from nls_tune.noise import parse_noise_level


@pytest.mark.parametrize("name", DATASETS)
def test_default_levels_are_in_their_one_spelling_and_can_be_had(name):
    info = dataset_info(name)
    assert pickle.loads(pickle.dumps(info)) == info  # it goes to other processes
    hash(info)
    for text in info.default_levels:
        level = parse_noise_level(text)
        assert str(level) == text
        check_level(info, level)
    texts = ["pairflip:0.3", "instance:0.4", "clean"]
    texts += ["asymmetric:0.3"] * (info.class_map is not None) + ["swap:0.3"] * (info.swap_map is not None)
    for text in texts:
        check_level(info, parse_noise_level(text))


@pytest.mark.parametrize(
    ("name", "level", "message"),
    [
        ("cifar100n", "human:worst", r"cifar100n.*'human:worst'.*valid: human:noisy"),
        ("cifar10n", "human:noisy", r"valid: human:aggre, human:random1"),
        ("cifar10", "human:worst", r"cifar10 has no human labels.*use --dataset cifar10n"),
        ("twonorm", "human:noisy", r"twonorm has no human labels.*use --dataset cifar100n"),
        ("waveform", "asymmetric:0.3", r"waveform defines none.*use pairflip:0\.3, or matrix:FILE"),
        ("cifar100", "swap:0.3", r"swap noise needs a map.*cifar100 defines none"),
        ("digits", "given", r"'given'.*digits is built in"),
        ("twonorm", "matrix:absent.csv", r"absent\.csv"),
    ],
)
def test_a_level_that_cannot_be_had_is_refused_in_one_line(name, level, message):
    with pytest.raises(InputError, match=message) as caught:
        check_level(dataset_info(name), parse_noise_level(level))
    assert "\n" not in str(caught.value)


def test_a_matrix_must_have_the_classes_of_a_dataset_that_exists(tmp_path):
    np.savetxt(tmp_path / "two.csv", np.eye(2), delimiter=",")
    level = parse_noise_level(f"matrix:{tmp_path / 'two.csv'}")
    check_level(dataset_info("twonorm"), level)
    with pytest.raises(InputError, match=r"must be 3 x 3"):
        check_level(dataset_info("waveform"), level)
    with pytest.raises(InputError, match=r"unknown dataset 'cifar-10' \(did you mean 'cifar10'\?\)"):
        dataset_info("cifar-10")


def test_the_maps_of_the_classes_are_those_of_the_field():
    assert dataset_info("cifar10").swap_map == {9: 1, 1: 9, 2: 0, 0: 2, 4: 7, 7: 4, 3: 5, 5: 3, 6: 8, 8: 6}
    found = dataset_info("cifar100").class_map
    # Aquatic mammals: beaver, dolphin, otter, seal, whale; trees: maple, oak, palm, pine, willow.
    for members in ((4, 30, 55, 72, 95), (47, 52, 56, 59, 96)):
        assert [found[label] for label in members] == [*members[1:], members[0]]
    assert sorted(found) == sorted(found.values()) == list(range(100))
