"""Bad input ends with exit code 2 and one line that says the rule, the value and the way out."""

import shlex
import socket
import sys
from pathlib import Path

import pytest
from commands import SEARCH, Done, ModulesAtTheEnd, is_one_line_error, run
from fake_cifar import write_cifar_parquet
from fake_runs import write_raw

from nls_tune import run_search
from nls_tune.cli.exit import run_app
from nls_tune.cli.search import app
from nls_tune.errors import InputError
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.directory import RunDirectory

#: Files that the table below names, and what is in them.
FILES = {
    "file": "text",
    "torn.yaml": "space:\n  smooth_rate: {type: float, low: -8,\n",
    "twice.yaml": "space:\n  lr: {type: float, low: 0.1, high: 1, default: 1}\n  lr: {type: int}\n",
    "sums.csv": "0.9, 0.2\n0.1, 0.9\n",
    "foreign/notes.txt": "text",
    "torn/run.json": '{"schema_version": 1, "run',
    "newer/run.json": '{"schema_version": 1000}',
}


#: Command lines, each with what its message must hold.
NAMES = [
    ("--dataset twonrom", "unknown dataset 'twonrom'", "did you mean 'twonorm'?", "cifar100n"),
    ("--noise symetric:0.4", "unknown noise level 'symetric'", "did you mean 'symmetric'?"),
    ("--dataset cifar10n --noise human:noisy", "human:noisy", "human:worst", "human:aggre"),
    ("--dataset cifar100 --noise human:worst", "cifar100 has no human labels", "cifar10n"),
    ("--noise clean,0.4", "got '0.4'; did you mean symmetric:0.4?"),
    ("--noise 40%", "got '40%'; did you mean symmetric:0.4?"),
    ("--noise 250", "unknown noise level '250'", "symmetric"),
    ("--dataset cifar10n --noise worse", "got 'worse'; did you mean human:worst?"),
    ("--noise worst", "twonorm has no human labels", "--dataset cifar10n"),
    ("--dataset cifar10n --noise noisy", "human:noisy", "human:worst"),
    ("--model mpl", "unknown model 'mpl'", "did you mean 'mlp'?"),
    ("--model my-models:build", "'my-models:build'", "module.path:function", "torchvision:NAME"),
    ("--model mlp --freeze", "freeze would keep random weights of mlp", "give weights"),
    ("--model mlp --weights default", "weights default is for torchvision:NAME and timm:NAME, not mlp"),
    ("--model linear --weights missing.pth", "--weights", "missing.pth cannot be read (No such file"),
    ("--model no_such_module:build", "there is no module 'no_such_module'"),
    ("--space twonrom", "unknown search space 'twonrom'", "did you mean 'twonorm'?", "waveform"),
    ("--preset tpu", "unknown preset 'tpu'", "did you mean 'gpu'?", "valid: gpu, cpu"),
    (
        "--dataset cifar10n --preset papr",
        "unknown preset 'papr'",
        "did you mean 'paper'?",
        "valid: cpu, quick, paper, paper_direct, gpu",
    ),
    ("--objective bst", "--objective", "'bst'", "'best'"),
    ("--compile maybe", "--compile", "'maybe'", "'auto'", "'on'"),
    ("--confirm-on all --set warmup_from=best", "--confirm-on all", "best epoch of the warm-up", "warmup_from=last"),
    ("--set lrr=1", "--set", "'lrr'", "did you mean 'lr'?"),
    ("--epoch 3", "--epoch", "--epochs"),
    ("twonorm", "twonorm"),
]
RANGES = [
    ("--noise symmetric:1.5", "symmetric", "from 0 to 1", "1.5"),
    ("--noise human:worst,human:worse --dataset cifar10n", "human:worst", "twice"),
    ("--noise symmetric:0.2,,clean", "between all commas"),
    ("--num-trials 0", "--num-trials", "greater than or equal to 1", "got 0"),
    ("--num-trials 1.5", "--num-trials", "valid integer"),
    ("--train-size 4001", "4,000", "4,001"),
    ("--test-size 10001", "test_size", "2 to 10,000, not 10,001"),
    ("--test-size 1", "test_size", "one sample per class"),
    ("--assume-gpus 8", "--assume-gpus needs --dry-run"),
    ("--assume-gpus 8 --dry-run --address auto", "--assume-gpus cannot go with --address"),
    ("--assume-gpus -1 --dry-run", "--assume-gpus", "greater than or equal to 0"),
    ("--assume-gpus 0 --dry-run --trials-per-gpu 2", "--trials-per-gpu 2 needs a GPU"),
    ("--val-fraction nan", "--val-fraction", "got nan"),
    ("--val-fraction 0.00001", "1e-05 of 8,000", "0 for validation"),
    ("--seed -1", "--seed", "got -1"),
    ("--time-budget 0", "--time-budget", "above 0", "90s, 30m", "'0'"),
    ("--time-budget soon", "--time-budget", "90s, 30m", "'soon'"),
    ("--noise-draws --confirm-seeds 0", "--noise-draws", "--confirm-seeds"),
    ("--level-weight symmetric:0.5=2", "--level-weight", "'symmetric:0.5'", "symmetric:0, symmetric:0.1"),
    ("--level-weight symmetric:0.4=0", "--level-weight", "above 0", "'symmetric:0.4=0'"),
    ("--level-weight symmetric:0.4=inf", "--level-weight", "at most 1000", "inf"),
    ("--level-weight symmetric:0.4", "LEVEL=WEIGHT", "'symmetric:0.4'"),
    ("--level-weight symmetric:0.4=1,symmetric:0.40=2", "--level-weight", "twice"),
    ("--level-weight clean=2 --noise clean --sampler grid --set lr=0.1", "--level-weight", "--sampler grid"),
    ("--noise-seed 4294967296", "--noise-seed", "4294967296"),
    ("--cpus-per-trial 10000", "--cpus-per-trial", "10000"),
    ("--trials-per-gpu auto", "--trials-per-gpu", "from 1 to 99", "got 'auto'"),
    ("--train-size 100", "batch_size", "100", "128"),
    ("--set lr", "KEY=VALUE", "'lr'"),
    ("--set seed=3", "seed", "--seed"),
    ("--set lr=0.1 --set lr=0.2", "--set: lr is given twice", "leave one of them out"),
    ("--set lr.low=0.001 --set lr=0.2", "--set: lr and lr.low set the same"),
    ("--model mlp --set model=cnn9", "--set: model is given twice"),
    ("--set 'lr={a: 1, a: 2}'", "--set lr", "the key 'a' is there twice"),
    ("--set budget.grace_epochs=41", "grace_epochs", "41"),
    ("--set flip=true", "flip", "images"),
    ("--model small_cnn", "small_cnn", "images", "mlp"),
    ("--dataset digits --train-size 5", "train_size", "10", "5"),
]
SPACES = [
    ("--space missing.yaml", "missing.yaml", "does not exist"),
    ("--space foreign", "foreign", "is a folder"),
    ("--space torn.yaml", "torn.yaml", "not valid YAML", "line 3"),
    ("--space twice.yaml", "twice.yaml", "the key 'lr' is there twice"),
]
MATRICES = [
    ("--noise asymmetric:0.3", "twonorm defines none", "pairflip:0.3", "matrix:FILE"),
    ("--noise given", "'given'", "twonorm is built in"),
    ("--noise matrix:missing.csv", "missing.csv", "2 rows of 2 numbers"),
    ("--noise matrix:", "nothing after the colon", "matrix:FILE"),
    ("--noise matrix:sums.csv", "sums.csv", "sum to 1", "1.1 in row 0"),
]
PLACES = [
    ("--out file", "--out must be a folder", "file is a file"),
    ("--warmup-store file", "--warmup-store must be a folder that can be written", "file is not", "none"),
    ("--out file/run", "--out", "can be written", "file/run is not"),
    ("--out foreign", "--out must be empty or a run", "foreign"),
    ("--out torn", "torn", "run.json", "cannot be read"),
    ("--out newer", "newer", "schema version 1000"),
    ("--warm-start foreign", "--warm-start", "is not a run"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the table names."""
    root = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        file = root / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    return root


@pytest.fixture
def refused(folder, monkeypatch, capfd):
    """Run the search with bad input in this process; check how it ends and return its message."""
    monkeypatch.chdir(folder)

    def check(*arguments: str) -> str:
        code = run_app(app, arguments)
        done = Done(code, *capfd.readouterr())
        assert done.has_failed_in_one_line(), done
        ray = sys.modules.get("ray")
        assert ray is None or not ray.is_initialized()
        return done.err

    return check


@pytest.mark.parametrize("bad", [*NAMES, *RANGES, *SPACES, *MATRICES, *PLACES], ids=lambda bad: bad[0])
def test_one_line_and_exit_code_2(refused, folder, bad):
    before = sorted(folder.iterdir())
    line, *parts = bad
    arguments = shlex.split(line)
    names_data = {"--dataset", "--images", "--table", "--arrays"} & {word.partition("=")[0] for word in arguments}
    message = refused(*(() if names_data else ("--dataset", "twonorm")), *arguments)
    for part in parts:
        assert part in message
    assert sorted(folder.iterdir()) == before


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
    given = {
        "--dataset": "twonorm",
        "--noise": "symmetric:0.4",
        "--epochs": "6",
        "--num-trials": "4",
        "--train-size": "500",
    }
    plan = make_plan(
        check_search_settings(dataset="twonorm", noise=("symmetric:0.4",), epochs=6, num_trials=4, train_size=500),
        0,
        progress=False,
    )
    run = RunDirectory(tmp_path / "run")
    run.create()
    write_raw(run.path, run_id="x", status="running", identity=plan.identity().model_dump(mode="json"))
    given.update([changes])
    message = refused(*[text for pair in given.items() for text in pair], "--preset", "cpu", "--out", str(run.path))
    for part in (difference, "other settings", "--out"):
        assert part in message
    assert run.read_json().status == "running"


def test_damaged_files_of_data(refused, tmp_path):
    images = tmp_path / "cifar10" / "train-00001-of-00002.parquet"
    write_cifar_parquet(images.parent)
    images.write_bytes(images.read_bytes()[:-100])
    message = refused("--dataset", "cifar10", "--data-dir", str(tmp_path))
    assert f"{images} cannot be read as Parquet" in message
    assert "intact copy" in message


@pytest.fixture
def refused_without_ray(folder, tmp_path):
    """Run the search with bad input in a process of its own, which must not import Ray, and return its message."""

    def check(*arguments: str, **env: str | None) -> str:
        modules = ModulesAtTheEnd(tmp_path / "site")
        done = run(*SEARCH, *arguments, folder=folder, env={**modules.env, **env})
        assert done.has_failed_in_one_line(), done
        assert "ray" not in modules.names
        return done.err

    return check


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["--bogus 3", "--train-size 4001", "--warmup-store file/store"])
def test_no_process_is_started_and_ray_is_not_imported(refused_without_ray, arguments):
    refused_without_ray(*shlex.split(arguments))


@pytest.mark.slow
def test_missing_data_without_a_network(refused_without_ray, tmp_path):
    with socket.socket() as proxy:  # bound, and nobody listens
        proxy.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        (tmp_path / "data").mkdir()
        message = refused_without_ray(
            "--dataset", "cifar10n", "--data-dir", str(tmp_path / "data"),
            NLS_TUNE_DATA=None, https_proxy=url, HTTPS_PROXY=url, no_proxy=None, NO_PROXY=None,
        )  # fmt: skip
    parts = ("cifar10/train-*.parquet", "cifar-10-batches-py", str(tmp_path / "data"), "--data-dir", "no connection")
    assert all(part in message for part in parts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": ["symmetric:0.4", "symetric:0.2"]}, "did you mean 'symmetric'"),
        ({"num_trial": 4}, "unknown search setting 'num_trial' .did you mean 'num_trials'"),
        ({"num_trials": "many"}, "--num-trials: .*valid integer.*'many'"),
        ({"trials_per_gpu": True}, "--trials-per-gpu: .*from 1 to 99, got True"),
        ({"confirm_seeds": 21}, "--confirm-seeds: .*less than or equal to 20, got 21"),
        ({"time_budget": float("nan")}, "--time-budget: .*got nan"),
        ({"mlflow": ""}, "--mlflow: .*at least 1 character"),
        ({"out": "/dev/null/run"}, "--out"),
        ({"noise": ()}, "noise"),
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
