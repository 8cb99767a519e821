"""Bad input ends with exit code 2 and one line that says the rule, the value and the way out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands import Done, is_one_line_error, run
from fake_cifar import NUM_TEST, NUM_TRAIN, write_cifar_parquet
from fake_runs import write_raw

from nls_tune import run_search
from nls_tune.cli.exit import run_app
from nls_tune.cli.search import app
from nls_tune.datasets import DATASETS, cifarn
from nls_tune.errors import InputError
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.directory import RunDirectory

SPACE = """
space:
  smooth_rate: {type: float, low: -8, high: 0.8, scale: log1m, default: -1}
  warmup_epochs: {type: int, low: 0, high: 2, default: 1}
  lr: {type: float, low: 1.0e-4, high: 0.1, scale: log, default: 0.01}
fixed: {model: mlp}
budget: {trials: 4, epochs: 6, grace_epochs: 2}
"""


def _changed(old: str, new: str) -> str:
    assert old in SPACE
    return SPACE.replace(old, new)


#: Files that the table below names: text, or bytes.
FILES: dict[str, str | bytes] = {
    "file": "text",
    "good.yaml": SPACE,
    "empty.yaml": "",
    "torn.yaml": SPACE[: SPACE.index("scale")],
    "list.yaml": "- space\n- arms\n",
    "binary.yaml": bytes(range(256)),
    "code.yaml": "space: !!python/object/apply:os.system ['true']\n",
    "type.yaml": _changed("type: int", "type: integer"),
    "text.yaml": _changed("high: 0.1", "high: much"),
    "twice.yaml": _changed("{model: mlp}", "{model: mlp, lr: 0.1}"),
    "start.yaml": SPACE + "start: [{smooth_rate: -20}]\n",
    "warmup.yaml": _changed("high: 2", "high: 6"),
    "no_rate.yaml": "space:\n  lr: {type: float, low: 0.1, high: 0.2, default: 0.1}\n",
    "sums.csv": "0.9, 0.2\n0.1, 0.9\n",
    "three.csv": "1 0 0\n0 1 0\n0 0 1\n",
    "negative.csv": "1.2, -0.2\n0, 1\n",
    "words.csv": "a, b\nc, d\n",
    "matrix.npy": b"\x93NUMPY\x01",
    "foreign/notes.txt": "text",
    "torn/run.json": '{"schema_version": 1, "run',
    "newer/run.json": '{"schema_version": 1000}',
    "nothing/run.json": "[]",
    "odd/run.json": '{"schema_version": null}',
    "odd_text/run.json": '{"schema_version": "one"}',
    "little/run.json": '{"schema_version": 1}',
}


@dataclass(frozen=True)
class Case:
    """A command line and what its message must hold."""

    arguments: str
    parts: tuple[str, ...]


def case(arguments: str, *parts: str) -> Case:
    return Case(arguments, parts)


NAMES = [
    case("--dataset twonrom", "unknown dataset 'twonrom'", "did you mean 'twonorm'?", "cifar100n"),
    case("--dataset CIFAR10", "did you mean 'cifar10'?"),
    case("--noise symetric:0.4", "unknown noise level 'symetric'", "did you mean 'symmetric'?"),
    case("--dataset cifar10n --noise human:noisy", "human:noisy", "human:worst", "human:aggre"),
    case("--dataset cifar100 --noise human:worst", "cifar100 has no human labels", "cifar10n"),
    case("--noise human:worst", "twonorm has no human labels", "--dataset cifar10n"),
    case("--model mpl", "unknown model 'mpl'", "did you mean 'mlp'?"),
    case("--dataset cifar10 --model resnet43", "unknown model 'resnet43'", "did you mean 'resnet34'?"),
    case("--space twonrom", "unknown search space 'twonrom'", "did you mean 'twonorm'?", "paper_grid"),
    case("--preset tpu", "--preset", "'tpu'", "'gpu'"),
    case("--objective bst", "--objective", "'bst'", "'best'"),
    case("--compile maybe", "--compile", "'maybe'", "'auto'", "'on'"),
    case("--set lrr=1", "--set", "'lrr'", "did you mean 'lr'?"),
    case("--set optimizer=adam", "optimizer", "'adam'", "'adamw'"),
    case("--epoch 3", "--epoch", "--epochs"),
    case("--num-trails 3", "--num-trails", "--num-trials"),
    case("twonorm", "twonorm"),
]
RANGES = [
    case("--noise symmetric:1.5", "symmetric", "from 0 to 1", "1.5"),
    case("--noise human:worst,human:worse --dataset cifar10n", "human:worst", "twice"),
    case("--noise symmetric:0.2,,clean", "between all commas"),
    case("--num-trials 0", "--num-trials", "greater than or equal to 1", "got 0"),
    case("--num-trials 1.5", "--num-trials", "valid integer"),
    case("--train-size 0", "--train-size", "got 0"),
    case("--train-size 1", "2 to 4,000", "not 1"),
    case("--train-size 4001", "4,000", "4,001"),
    case("--val-fraction 0", "--val-fraction", "greater than 0", "got 0.0"),
    case("--val-fraction nan", "--val-fraction", "got nan"),
    case("--val-fraction 0.00001", "1e-05 of 8,000", "0 for validation"),
    case("--seed -1", "--seed", "got -1"),
    case("--time-budget 0", "--time-budget", "above 0", "90s, 30m", "'0'"),
    case("--time-budget soon", "--time-budget", "90s, 30m", "'soon'"),
    case("--noise-draws --confirm-seeds 0", "--noise-draws", "--confirm-seeds"),
    case("--level-weight symmetric:0.5=2", "--level-weight", "'symmetric:0.5'", "symmetric:0, symmetric:0.1"),
    case("--level-weight symetric:0.4=2", "--level-weight", "did you mean 'symmetric:0.4'?"),
    case("--level-weight symmetric:0.4=0", "--level-weight", "above 0", "'symmetric:0.4=0'"),
    case("--level-weight symmetric:0.4=inf", "--level-weight", "at most 1000", "inf"),
    case("--level-weight symmetric:0.4=much", "--level-weight", "'symmetric:0.4=much'"),
    case("--level-weight symmetric:0.4", "LEVEL=WEIGHT", "'symmetric:0.4'"),
    case("--level-weight symmetric:0.4=1,symmetric:0.40=2", "--level-weight", "twice"),
    case(
        "--level-weight symmetric:0.4=2 --sampler grid --set lr=0.1 --set warmup_epochs=1 --set optimizer=sgd",
        "--level-weight",
        "--sampler grid",
    ),
    case("--noise-seed 4294967296", "--noise-seed", "4294967296"),
    case("--cpus-per-trial 10000", "--cpus-per-trial", "10000"),
    case("--cpus-per-trial 0", "--cpus-per-trial", "got 0"),
    case("--trials-per-gpu 0", "--trials-per-gpu", "from 1 to 99", "got '0'"),
    case("--trials-per-gpu auto", "--trials-per-gpu", "from 1 to 99", "got 'auto'"),
    case("--set batch_size=5000", "batch_size", "4000", "5000"),
    case("--train-size 100", "batch_size", "100", "128"),
    case("--set batch_size=1", "batch_size", "greater than or equal to 2", "got 1"),
    case("--set lr=-1", "lr", "greater than 0", "got -1"),
    case("--set lr", "KEY=VALUE", "'lr'"),
    case("--set 'lr={a'", "lr={a", "not valid YAML"),
    case("--set lr.low=1", "lr", "low must be at most high", "1.0 and 0.05"),
    case("--set lr.low.x=1", "lr.low.x"),
    case("--set momentum=0", "nesterov", "momentum above 0"),
    case("--set warmup_epochs=40", "warmup_epochs", "at least one GLS epoch", "40 of 40"),
    case("--set smooth_rate=-1", "smooth_rate", "must hold smooth_rate"),
    case("--set smooth_rate.high=2", "smooth_rate", "2.0"),
    case("--set seed=3", "seed", "--seed"),
    case("--set epochs=3", "epochs", "--epochs"),
    case("--set budget.grace_epochs=41", "grace_epochs", "41"),
    case("--set budget.reduction_factor=1", "reduction_factor", "greater than 1"),
    case("--set flip=true", "flip", "images"),
    case("--model small_cnn", "small_cnn", "images", "mlp"),
    case("--dataset digits --model cnn9", "cnn9", "12 x 12", "8 x 8"),
    case("--dataset digits --train-size 5", "train_size", "10", "5"),
    case("--transfer", "--transfer"),
    case("--vectorize", "--vectorize"),
    case("--dataset digits --set crop_padding=9", "crop_padding", "8", "9"),
]
SPACES = [
    case("--space missing.yaml", "missing.yaml", "does not exist"),
    case("--space foreign", "foreign", "is a folder"),
    case("--space empty.yaml", "empty.yaml", "holds nothing"),
    case("--space torn.yaml", "torn.yaml", "not valid YAML", "line 3"),
    case("--space list.yaml", "list.yaml", "must be a mapping", "list"),
    case("--space binary.yaml", "binary.yaml", "cannot be read"),
    case("--space code.yaml", "code.yaml", "not valid YAML"),
    case("--space type.yaml", "type.yaml", "warmup_epochs", "'integer'", "'int'"),
    case("--space text.yaml", "text.yaml: space.lr.high: ", "'much'"),
    case("--space twice.yaml", "twice.yaml", "lr stands in both space and fixed"),
    case("--space start.yaml", "start", "smooth_rate", "-20"),
    case("--space warmup.yaml", "warmup", "at least one GLS epoch", "6 of 6"),
    case("--space no_rate.yaml", "no_rate.yaml", "smooth_rate"),
]
MATRICES = [
    case("--noise asymmetric:0.3", "twonorm defines none", "pairflip:0.3", "matrix:FILE"),
    case("--dataset cifar100 --noise asymmetric:0.3", "cifar100 defines none", "pairflip:0.3"),
    case("--noise given", "'given'", "twonorm is built in"),
    case("--noise matrix:missing.csv", "missing.csv", "2 rows of 2 numbers"),
    case("--noise matrix:", "nothing after the colon", "matrix:FILE"),
    case("--noise matrix:sums.csv", "sums.csv", "sum to 1", "1.1 in row 0"),
    case("--noise matrix:three.csv", "three.csv", "2 x 2", "(3, 3)"),
    case("--noise matrix:negative.csv", "negative.csv", "not negative", "-0.2 in row 0, column 1"),
    case("--noise matrix:words.csv", "words.csv", "'a'"),
    case("--noise matrix:matrix.npy", "matrix.npy"),
    case("--noise matrix:file", "'file'", ".csv"),
]
PLACES = [
    case("--out file", "--out must be a folder", "file is a file"),
    case("--warmup-store file", "--warmup-store must be a folder that can be written", "file is not", "none"),
    case("--out file/run", "--out", "can be written", "file/run is not"),
    case("--out foreign", "--out must be empty or a run", "foreign"),
    case("--out torn", "torn", "run.json", "cannot be read"),
    case("--out newer", "newer", "schema version 1000"),
    case("--out nothing", "nothing", "run.json"),
    case("--out odd", "odd", "run.json"),
    case("--out odd_text", "odd_text", "run.json"),
    case("--out little", "little", "run.json", "cannot be read"),
    case("--warm-start missing", "--warm-start", "missing", "is not a run"),
    case("--warm-start file", "--warm-start", "is not a run"),
    case("--warm-start foreign", "--warm-start", "is not a run"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the table names."""
    root = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        file = root / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@pytest.fixture
def refused(folder, monkeypatch, capfd):
    """Run the search with bad input in this process; check how it ends and return its message."""
    monkeypatch.chdir(folder)

    def check(*arguments: str) -> str:
        code = run_app(app, arguments)
        done = Done(code, *capfd.readouterr(), 0.0)
        assert done.has_failed_in_one_line(), done
        ray = sys.modules.get("ray")
        assert ray is None or not ray.is_initialized()
        return done.err

    return check


@pytest.mark.parametrize("bad", [*NAMES, *RANGES, *SPACES, *MATRICES, *PLACES], ids=lambda bad: bad.arguments)
def test_one_line_and_exit_code_2(refused, folder, bad):
    before = sorted(folder.iterdir())
    message = refused(*shlex.split(bad.arguments))
    for part in bad.parts:
        assert part in message
    assert sorted(folder.iterdir()) == before


def test_the_good_space_is_good(folder, monkeypatch, capfd):
    """The spaces of the table are bad for the one reason that they are in it for."""
    monkeypatch.chdir(folder)
    assert run_app(app, ["--space", "good.yaml", "--dry-run"]) == 0
    assert capfd.readouterr().err == ""


def test_packing_and_the_preset_for_gpus_need_a_gpu(refused, monkeypatch):
    monkeypatch.setattr("nls_tune.tune.cluster.local_resources", lambda: {"CPU": 8, "GPU": 0})
    assert "--preset gpu needs a GPU, there is none; use cpu or auto" in refused("--preset", "gpu")
    assert "--trials-per-gpu 2 needs a GPU" in refused("--trials-per-gpu", "2")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        (("--epochs", "7"), "space.budget.epochs: 6 -> 7"),
        (("--noise", "symmetric:0.2"), "settings.noise: ['symmetric:0.4'] -> ['symmetric:0.2']"),
        (("--set", "lr.low=0.001"), "space.space.lr.low: 0.0001 -> 0.001"),
        (("--dataset", "waveform"), "settings.dataset: twonorm -> waveform"),
        (("--val-fraction", "0.25"), "fingerprints"),
    ],
)
def test_a_run_with_other_settings(refused, tmp_path, changes, difference):
    given = {"--noise": "symmetric:0.4", "--epochs": "6", "--num-trials": "4", "--train-size": "500"}
    plan = make_plan(
        check_search_settings(noise=("symmetric:0.4",), epochs=6, num_trials=4, train_size=500), 0, progress=False
    )
    run = RunDirectory(tmp_path / "run")
    run.create()
    write_raw(run.path, run_id="x", status="running", identity=plan.identity())
    given.update([changes])
    message = refused(*[text for pair in given.items() for text in pair], "--preset", "cpu", "--out", str(run.path))
    assert difference in message
    assert "other settings" in message
    assert "--out" in message
    assert run.read_json().status == "running"


class TestFilesOfData:
    @pytest.fixture
    def data(self, tmp_path, monkeypatch) -> Path:
        """A small CIFAR-10; the dataset expects no more samples."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for name in ("cifar10", "cifar10n"):
            info = dataclasses.replace(DATASETS[name], num_labelled=NUM_TRAIN, num_test=NUM_TEST)
            monkeypatch.setitem(DATASETS, name, info)
        write_cifar_parquet(tmp_path / "data" / "cifar10")
        return tmp_path / "data"

    def write_labels(self, monkeypatch, file: Path, clean: np.ndarray) -> None:
        """Write human labels, and make their SHA-256 the published one."""
        import torch

        spec = cifarn.LABEL_FILES["cifar10n"]
        torch.save({key: torch.from_numpy(clean) for key in ("clean_label", *spec.keys)}, file)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        monkeypatch.setitem(cifarn.LABEL_FILES, "cifar10n", dataclasses.replace(spec, sha256=sha256))

    def test_human_labels_in_another_order(self, refused, data, monkeypatch):
        clean = np.arange(NUM_TRAIN) % 10
        clean[[6, 7]] = clean[[7, 6]]  # the same sum, the same histogram
        self.write_labels(monkeypatch, data / "CIFAR-10_human.pt", clean)
        message = refused("--dataset", "cifar10n", "--noise", "human:worst", "--data-dir", str(data))
        for part in ("CIFAR-10_human.pt", "2 of 40 differ", "index 6", "in the same order"):
            assert part in message

    def test_human_labels_that_were_changed(self, refused, data):
        (data / "CIFAR-10_human.pt").write_bytes(b"something else")
        message = refused("--dataset", "cifar10n", "--data-dir", str(data))
        assert "CIFAR-10_human.pt must have the checksum sha256:873e69c39c" in message

    def test_parquet_that_is_damaged(self, refused, data):
        file = data / "cifar10" / "train-00001-of-00002.parquet"
        file.write_bytes(file.read_bytes()[:-100])
        message = refused("--dataset", "cifar10", "--data-dir", str(data))
        assert f"{file} cannot be read as Parquet" in message
        assert "intact copy" in message

    def test_parquet_of_which_a_part_is_missing(self, refused, data):
        (data / "cifar10" / "train-00001-of-00002.parquet").unlink()
        message = refused("--dataset", "cifar10", "--data-dir", str(data))
        assert "train-00001-of-00002.parquet" in message

    def test_too_few_images(self, refused, data, monkeypatch):
        monkeypatch.setitem(DATASETS, "cifar10", dataclasses.replace(DATASETS["cifar10"], num_labelled=50_000))
        message = refused("--dataset", "cifar10", "--data-dir", str(data))
        assert "50,000 training samples" in message
        assert "40" in message


def test_no_noise_level_at_all():
    with pytest.raises(InputError, match="noise"):
        make_plan(check_search_settings(noise=(), num_trials=1, epochs=1), 0, progress=False)


#: Runs the search as the command does and writes down what only the process itself knows.
OBSERVED = """
import json, sys, time
if "--data-dir" in sys.argv:
    import torchvision  # takes seconds, which are not the download's
begin = time.perf_counter()
from nls_tune.cli.exit import run_app
from nls_tune.search import app
code = run_app(app, sys.argv[2:])
facts = {"seconds": time.perf_counter() - begin, "ray": "ray" in sys.modules}
open(sys.argv[1], "w").write(json.dumps(facts))
sys.exit(code)
"""


@pytest.fixture
def observe(folder, tmp_path):
    """Run the search with bad input in a process of its own: how it ended, and facts of it."""

    def observed(*arguments: str, **env: str | None) -> tuple[Done, dict]:
        facts = tmp_path / "facts.json"
        done = run(sys.executable, "-c", OBSERVED, str(facts), *arguments, folder=folder, env=env)
        return done, json.loads(facts.read_text())

    return observed


@pytest.mark.parametrize("arguments", ["--bogus 3", "--train-size 4001", "--warmup-store file/store"])
def test_no_process_is_started_and_ray_is_not_imported(observe, arguments):
    done, facts = observe(*shlex.split(arguments))
    assert done.has_failed_in_one_line(), done
    assert not facts["ray"]
    assert facts["seconds"] < 10


@pytest.mark.parametrize("answers", [False, True], ids=["no connection", "a connection without an answer"])
def test_missing_data_without_a_network(observe, tmp_path, answers):
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        if answers:
            proxy.listen()  # connections are taken, and nothing ever comes
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        (tmp_path / "data").mkdir()
        done, facts = observe(
            "--dataset", "cifar10n", "--data-dir", str(tmp_path / "data"),
            NLS_TUNE_DATA=None, https_proxy=url, HTTPS_PROXY=url, no_proxy=None, NO_PROXY=None,
        )  # fmt: skip
    assert done.has_failed_in_one_line(), done
    for part in ("cifar10/train-*.parquet", "cifar-10-batches-py", str(tmp_path / "data"), "--data-dir"):
        assert part in done.err
    assert ("within 10 s" if answers else "no connection") in done.err
    assert facts["seconds"] < 20
    assert not facts["ray"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "twonrom"}, "did you mean 'twonorm'"),
        ({"noise": "symmetric:2"}, "from 0 to 1"),
        ({"noise": ["symmetric:0.4", "symetric:0.2"]}, "did you mean 'symmetric'"),
        ({"num_trial": 4}, "unknown search setting 'num_trial' .did you mean 'num_trials'"),
        ({"num_trials": "many"}, "--num-trials: .*valid integer.*'many'"),
        ({"trials_per_gpu": True}, "--trials-per-gpu: .*from 1 to 99, got True"),
        ({"confirm_seeds": 21}, "--confirm-seeds: .*less than or equal to 20, got 21"),
        ({"time_budget": float("nan")}, "--time-budget: .*got nan"),
        ({"mlflow": ""}, "--mlflow: .*at least 1 character"),
        ({"overrides": {"lrr": 1}}, "did you mean 'lr'"),
        ({"overrides": ["lr"]}, "KEY=VALUE"),
        ({"overrides": {"model": "mpl"}}, "did you mean 'mlp'"),
        ({"space": "nowhere.yaml"}, r"nowhere\.yaml does not exist"),
        ({"out": "/dev/null/run"}, "--out"),
        ({"train_size": 100}, "batch_size"),
    ],
)
def test_from_python_it_is_an_input_error(arguments, message, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        run_search(**arguments)
    assert isinstance(caught.value, ValueError)
    assert is_one_line_error(f"error: {caught.value}\n")
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
