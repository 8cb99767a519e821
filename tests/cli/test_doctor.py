"""The doctor on a healthy machine, and on machines that are broken in one way each."""

import json
import shutil
import socket
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_runs import read_raw, write_fake_run, write_raw

from nls_tune import read_epochs, read_trials
from nls_tune.cli import main
from nls_tune.cli.exit import run_app
from nls_tune.datasets.cifarn import LABEL_FILES
from nls_tune.machine import checks
from nls_tune.machine.hardware import Gpu, Gpus
from nls_tune.machine.limits import Memory
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.parts import part_states
from nls_tune.tune.preflight import NodeReport

GB = 10**9


@pytest.fixture(autouse=True)
def healthy(monkeypatch, tmp_path) -> pytest.MonkeyPatch:
    """A machine on which all is well; its Ray is played."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "60")  # lines are not folded
    for name in (
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_memory_usage_threshold",
        "NLS_TUNE_DATA",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(checks, "find_gpus", Gpus)
    monkeypatch.setattr(checks, "memory", lambda: Memory(4 * GB, 16 * GB))
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: SimpleNamespace(free=60 * GB, total=100 * GB))
    monkeypatch.setattr("nls_tune.tune.starting.ray_session", lambda address: nullcontext({"CPU": 4.0, "GPU": 0.0}))
    monkeypatch.setattr("nls_tune.tune.preflight.ask_nodes", lambda folders: [NodeReport("here (10.0.0.1)", 4, 0, ())])
    return monkeypatch


@pytest.fixture
def run(tmp_path) -> Path:
    return write_fake_run(tmp_path / "run", trials=8, epochs=6, num_val=100, num_test=50)


@pytest.fixture
def doctor(capsys):
    """Asks the doctor; returns the exit code and the lines that do not say ok, without blanks between columns."""

    def ask(*arguments: object) -> tuple[int, list[str]]:
        code = run_app(main.app, ["doctor", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert err == ""
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert all(line.startswith(("ok ", "warning ", "failure ")) for line in lines[:-2])
        assert all("; " in line for line in lines[:-2] if not line.startswith("ok ")), "a way out is missing"
        return code, [line for line in lines[:-2] if not line.startswith("ok ")]

    return ask


def test_a_healthy_machine_and_run_are_well(doctor, run):
    assert doctor(run) == (0, [])


def test_it_prints_json(run, capsys):
    assert run_app(main.app, ["doctor", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "ok"
    assert {check["name"] for check in found["checks"]} == {
        "python", "packages", "gpu", "cpus", "memory", "open files", "run folder", "cache folder", "Ray folder", "data",
        "authentication", "ray", "node", "run",
    }  # fmt: skip
    assert {"name", "state", "found", "way_out"} == set(found["checks"][0])


def only(answer: tuple[int, list[str]], *words: str) -> None:
    """Check that exactly one line is not ok, that it begins with the first of the words, and has the others."""
    code, (line,) = answer
    assert line.startswith(words[0]), line
    assert code == (1 if line.startswith("warning") else 2)
    for word in words[1:]:
        assert word in line


# Machines


def test_another_python_than_the_package_can_use(doctor, healthy):
    healthy.setattr(checks, "_wanted_python", lambda: ">=4.2")
    only(doctor(), "failure python", "Python >=4.2")


def test_packages_that_are_missing_or_too_old(doctor, healthy):
    healthy.setattr(checks, "_required", lambda: ["numpy>=2", "no-such-package", "torch<1", "other; extra == 'test'"])
    code, (missing, old) = doctor()
    assert code == 2
    assert "no-such-package is not installed" in missing
    assert "pip install 'torch<1'" in old


def test_a_gpu_that_torch_does_not_see(doctor, healthy):
    healthy.setattr(checks, "find_gpus", lambda: Gpus((), "the driver is too old"))
    only(doctor(), "warning gpu", "the driver is too old")


def test_a_torch_that_cannot_be_asked(doctor, healthy):
    def find_gpus() -> Gpus:
        raise RuntimeError("torch cannot be asked (no libcuda); mend torch")

    healthy.setattr(checks, "find_gpus", find_gpus)
    only(doctor(), "failure gpu torch cannot be asked", "; mend torch")


def test_gpus_are_counted_and_their_driver_named(doctor, healthy, tmp_path, capsys):
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n")
    healthy.setattr(checks, "_DRIVER", driver)
    healthy.setattr(checks, "find_gpus", lambda: Gpus((Gpu("H200", True, True),) * 2))
    assert run_app(main.app, ["doctor"]) == 0
    assert "2 x H200, driver 550.54.15" in capsys.readouterr().out


@pytest.mark.parametrize(("used", "state"), [(15.5, "failure"), (14.5, "warning")])
def test_memory_that_others_use(doctor, healthy, used, state):
    healthy.setattr(checks, "memory", lambda: Memory(int(used * GB), 16 * GB))
    only(doctor(), f"{state} memory {used} of 16.0 GB in use")


def test_little_shared_memory(doctor, healthy):
    usage = SimpleNamespace(free=60 * GB, total=100 * GB)
    small = SimpleNamespace(free=64_000_000, total=64_000_000)
    healthy.setattr(checks.shutil, "disk_usage", lambda folder: small if str(folder) == "/dev/shm" else usage)
    only(doctor(), "warning memory /dev/shm has 64 MB left", "--shm-size")


def test_too_few_open_files(doctor, healthy):
    healthy.setattr(checks.resource, "getrlimit", lambda what: (64, 64))
    only(doctor(), "warning open files a process may have 64 open", "ulimit -n")


def test_a_folder_that_cannot_be_written(doctor, healthy, tmp_path):
    healthy.setenv("XDG_CACHE_HOME", "/proc/cache")  # which nobody can write, root included
    only(doctor(), "failure cache folder /proc cannot be written", "set XDG_CACHE_HOME")


def test_the_size_of_the_cache(healthy, tmp_path, capsys):
    healthy.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = tmp_path / "cache" / "nls_tune" / "images" / "abc"
    images.mkdir(parents=True)
    with (images / "images.npy").open("wb") as file:
        file.truncate(2_345_000_000)
    run_app(main.app, ["doctor"])
    assert "GB free, it holds 2.3 GB" in " ".join(capsys.readouterr().out.split())


def test_a_full_disk(doctor, healthy):
    shared = Path("/dev/shm")
    free = lambda folder: (60 if folder == shared else 1) * GB  # noqa: E731
    healthy.setattr(checks.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free(folder), total=100 * GB))
    only(doctor(), "warning Ray folder", "1.0 of 100.0 GB free", "make room, or set RAY_TMPDIR")


def test_a_file_system_without_locks(doctor, healthy):
    healthy.setattr(checks, "FileLock", checks.SoftFileLock)
    only(doctor(), "warning run folder", "without locks", "--out")


# Ray


def test_a_token_of_which_the_user_does_not_know(doctor, tmp_path):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    only(doctor(), "warning authentication RAY_AUTH_MODE is not set", ".ray/auth_token", "the same on head")


@pytest.mark.parametrize(("mode", "state"), [("token", "warning"), ("tokens", "failure"), ("disabled", None)])
def test_a_mode_of_authentication(doctor, healthy, mode, state):
    healthy.setenv("RAY_AUTH_MODE", mode)
    answer = doctor()
    assert answer == (0, []) if state is None else only(answer, f"{state} authentication RAY_AUTH_MODE is") is None


def test_a_ray_that_does_not_start(doctor, healthy):
    def ray_session(address):
        raise RuntimeError("Ray does not start on this machine: no free port; try again")

    healthy.setattr("nls_tune.tune.starting.ray_session", ray_session)
    only(doctor(), "failure ray Ray does not start on this machine: no free port; try again")


def test_an_address_without_a_cluster(doctor, healthy):
    healthy.undo()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        code, lines = doctor("--address", address)
    assert code == 2
    assert any(f"failure ray no Ray cluster answers at '{address}'" in line for line in lines)


def test_a_node_that_cannot_take_part(doctor, healthy):
    bad = NodeReport("b (10.0.0.2)", 4, 0, ("node b (10.0.0.2) has Ray 2.59; install the same", "node b x; y"))
    healthy.setattr("nls_tune.tune.preflight.ask_nodes", lambda folders: [bad])
    code, lines = doctor()
    assert code == 2
    assert lines == ["failure node node b (10.0.0.2) has Ray 2.59; install the same", "failure node node b x; y"]


# Data


def test_damaged_labels_and_half_of_the_images(doctor, tmp_path):
    data = tmp_path / "data"
    (data / "cifar100").mkdir(parents=True)
    (data / LABEL_FILES["cifar10n"].name).write_bytes(b"damaged")
    (data / "cifar100" / "train-00000-of-00001.parquet").write_bytes(b"")
    code, (images, labels) = doctor("--data-dir", data)
    assert code == 2
    assert images.startswith("failure data")
    assert "no test-*.parquet; put both there" in images
    assert "does not have the published SHA-256; remove it" in labels


def test_images_that_are_damaged(doctor, tmp_path):
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"damaged")
    only(doctor("--data-dir", tmp_path / "data"), "failure data", "data_batch_1 does not have the published MD5")
    shutil.rmtree(folder)
    for split in ("train", "test"):
        (tmp_path / "data" / f"{split}.parquet").write_bytes(b"damaged")
    code, lines = doctor("--data-dir", tmp_path / "data")
    assert (code, len(lines)) == (2, 2)
    assert all("cannot be read" in line for line in lines)


def test_a_mistyped_folder_of_data(doctor):
    only(doctor("--data-dir", "no-such"), "failure data --data-dir must be a folder")


# Runs


@pytest.mark.parametrize("status", ["interrupted", "failed", "running"])
def test_a_run_that_has_not_finished(doctor, run, status):
    write_raw(run, status=status)
    shown = "crashed" if status == "running" else status
    only(doctor(run), f"warning run run: {shown}, 16 trials")


def test_a_folder_that_is_not_a_run(doctor, tmp_path):
    only(doctor(tmp_path / "other"), "failure run", "is not a run")


def test_a_run_with_a_torn_part_and_one_row_less(doctor, run):
    first, second, *_ = [name for name in part_states(run / "trials") if name != "empty.parquet"]
    (run / "trials" / first).write_bytes((run / "trials" / first).read_bytes()[:-100])
    write_raw(run, search_trials=16)
    code, lines = doctor(run)
    assert code == 2
    assert any(first in line for line in lines)
    assert any("has 15 of 16 rows of the search" in line for line in lines)
    assert any(f"trial {Path(first).stem} has epochs and no row" in line for line in lines)
    (run / "trials" / second).unlink()
    assert any("has 14 of 16 rows" in line for line in doctor(run)[1])


def test_a_run_whose_plan_has_fewer_trials_and_whose_epochs_are_gone(doctor, run):
    plan = read_raw(run)["plan"]
    plan[0]["trials"] = {"ce": 1, "positive": 1, "negative": 1}
    write_raw(run, plan=plan)
    only(doctor(run), "failure run", "has 8 rows of the search, planned are 3")
    for part in (run / "epochs").glob("*.parquet"):
        if part.name != "empty.parquet":
            part.unlink()
            break
    code, lines = doctor(run)
    assert (code, len(lines)) == (2, 2)
    assert "epochs/ has not the epochs of 1 of 16 trials" in lines[1]


def test_a_trial_that_is_there_under_two_names(doctor, run):
    content = read_raw(run)
    for level in content["plan"]:
        level["trials"]["ce"] += 1
    write_raw(run, plan=content["plan"])
    directory = RunDirectory(run)
    row = read_trials(run).iloc[0].to_dict()
    row = {name: None if isinstance(value, float) and value != value else value for name, value in row.items()}
    directory.write_trial({**row, "trial_id": "f" * 16})
    epochs = read_epochs(run)
    rows = epochs[epochs["trial_id"] == row["trial_id"]].assign(trial_id="f" * 16).to_dict("records")
    directory.write_epochs([{**one, "average_val_accuracies": list(one["average_val_accuracies"])} for one in rows])
    only(doctor(run), "failure run", "is a second time there under another name")
