"""A search on CIFAR-10 with human labels, from the published files."""

import json
import os
import re
from pathlib import Path

import pytest
from commands import Done, ModulesAtTheEnd, run_search

from nls_tune import read_trials
from nls_tune.datasets.locations import DATA_VARIABLE

pytestmark = [pytest.mark.real_data, pytest.mark.timeout(400)]
ARGUMENTS = (
    "--dataset", "cifar10n", "--noise", "human:worst", "--model", "small_cnn", "--train-size", "500",
    "--epochs", "2", "--num-trials", "4", "--val-fraction", "0.02", "--preset", "cpu", "--confirm-seeds", "0",
    "--set", "batch_size=128",
)  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> tuple[Done, Path, dict[str, str]]:
    """A search from the real files, or from the suite's cache where an earlier test has decoded them."""
    data = os.environ.get(DATA_VARIABLE)
    if not data or not Path(data).is_dir():
        pytest.skip(f"needs {DATA_VARIABLE}, the folder of the real CIFAR files")
    folder, env = tmp_path_factory.mktemp("real"), {DATA_VARIABLE: str(Path(data).absolute())}
    return run_search(*ARGUMENTS, "--out", "run", folder=folder, env=env, seconds=300), folder, env


def test_it_succeeds_and_shows_and_stores_the_published_rate(searched):
    done = searched[0]
    assert (done.code, done.err) == (0, "")
    assert (
        "Search of cifar10n: 500 training, 1000 validation (noisy labels), 10000 test samples, 10 classes" in done.out
    )
    plan, _, results = done.out.partition("Results: ")
    assert re.search(r"^human:worst +40\.2 % ", plan, re.MULTILINE)
    assert re.search(r"^human:worst +40\.2 % ", results, re.MULTILINE)
    trials = read_trials(searched[1] / "run")
    assert len(trials) == 4
    assert trials["noise_rate"].tolist() == [pytest.approx(0.40208)] * 4
    # The symmetric equivalent of that rate: -(1 - c) / c with c = 1 - e * 10 / 9.
    assert trials["noise_cancelling_rate"].tolist() == [pytest.approx(-0.8076, abs=2e-3)] * 4
    assert set(trials["num_val"]) == {1000}
    assert json.loads((searched[1] / "run" / "run.json").read_text())["status"] == "finished"


def test_a_second_search_starts_from_the_cache_without_what_decodes(searched):
    _, folder, env = searched
    modules = ModulesAtTheEnd(folder / "site")
    done = run_search(*ARGUMENTS, "--dry-run", folder=folder, env={**env, **modules.env})
    assert (done.code, done.err) == (0, "")
    assert not modules.names & {"torch", "torchvision", "PIL"}
