"""Every example runs as it stands, with a budget that is small."""

import re
import sys

import pytest
from commands import REPOSITORY, run

from nls_tune import read_trials

pytestmark = pytest.mark.slow

#: The arguments of each example; one that is missing here is a failure.
ARGUMENTS = {
    "quickstart.py": ("--num-trials", "4", "--epochs", "6", "--train-size", "500", "--out", "run"),
    "grouped_search.py": ("--num-trials", "6"),
    "own_data.py": ("--num-trials", "4", "--epochs", "6", "--seeds", "2"),
}


def test_every_example_is_run():
    assert {file.name for file in (REPOSITORY / "examples").glob("*.py")} == set(ARGUMENTS)


@pytest.mark.timeout(150)
def test_quickstart(tmp_path):
    program = str(REPOSITORY / "examples" / "quickstart.py")
    # Nothing answers there: without an address in its settings a search runs here, whatever the environment says.
    env = {"RAY_ADDRESS": "127.0.0.1:1"}
    done = run(sys.executable, program, *ARGUMENTS["quickstart.py"], folder=tmp_path, env=env, seconds=120)
    assert (done.code, done.err) == (0, "")
    trials = read_trials(tmp_path / "run")
    assert len(trials) == 4
    best = trials[trials["status"] == "completed"].groupby("arm")["best_val_accuracy"].max()
    first, *table = done.out.splitlines()
    assert re.fullmatch(r"symmetric:0.4: not_(confirmed, use \{.*\}|trained_enough, use None)", first)
    for arm, accuracy in best.items():
        (row,) = [line for line in table if f" {arm} " in line]
        assert f"{accuracy:.6f}".rstrip("0")[:7] in row
    assert sum("test_accuracy_at_best" in line for line in table) == 3


@pytest.mark.timeout(150)
def test_grouped_search(tmp_path):
    program = str(REPOSITORY / "examples" / "grouped_search.py")
    done = run(sys.executable, program, *ARGUMENTS["grouped_search.py"], folder=tmp_path, seconds=120)
    assert (done.code, done.err) == (0, "")
    line = r"(\w+): 6 trials, (\d) stopped early, best score ([\d.]+) with lr \S+ and (?:adam|sgd)"
    found = [re.fullmatch(line, text) for text in done.out.splitlines()]
    assert [match and match[1] for match in found] == ["cheap", "dear"]
    # One ASHA over both would have let no cheap trial end, and stopped no dear one for a cheap one's sake.
    assert all(1 <= int(match[2]) <= 5 for match in found if match)
    cheap, dear = (float(match[3]) for match in found if match)
    assert 0.3 < cheap < 1 < 300 < dear < 1000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(150)
def test_own_data(tmp_path):
    program = str(REPOSITORY / "examples" / "own_data.py")
    done = run(sys.executable, program, *ARGUMENTS["own_data.py"], folder=tmp_path, seconds=120)
    assert (done.code, done.err) == (0, "")
    number = r"[-+]?[\d.]+(?:e-\d+)?"
    settings = rf"smooth_rate {number}, warmup_epochs \d+, lr {number}; validation {number} %, test {number} %"
    against = rf", against ce {number} \[{number}, {number}\] points"
    lines = zip(("ce", "positive", "negative"), ("", against, against), done.out.splitlines(), strict=True)
    for arm, end, line in lines:
        assert re.fullmatch(f"{arm}: {settings}{end}", line), line


@pytest.mark.parametrize("name", ["search", "search_nodes"])
def test_a_batch_file_is_a_shell_script(name):
    file = REPOSITORY / "examples" / f"{name}.sbatch"
    assert run("bash", "-n", str(file), folder=REPOSITORY).code == 0
    assert "#SBATCH --signal=B:TERM@" in file.read_text()
    assert "exec python -m nls_tune.search" in file.read_text()  # else the signal would end the shell alone
