"""What torch is asked about the machine, in a process of its own, and what is refused before Ray starts."""

from pathlib import Path

import pytest
import torch
from commands import Done

from nls_tune.cli.exit import run_app
from nls_tune.cli.search import app
from nls_tune.errors import InputError
from nls_tune.machine import gpu_probe, hardware
from nls_tune.machine.hardware import Gpu, Gpus, check_compile, check_precision, find_gpus

T4, H100, P100 = (
    Gpu("Tesla T4", bfloat16=False, triton=True),
    Gpu("NVIDIA H100", bfloat16=True, triton=True),
    Gpu("Tesla P100", bfloat16=False, triton=False),
)

#: A torch of a machine with three GPUs, as far as the probe asks it; it notes every context that is made.
FAKE_TORCH = """
import os, types, warnings
__version__ = "9.9"
visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2").split(",")
machine = [("Tesla T4", 7), ("NVIDIA H100", 9), ("NVIDIA H100", 9)]
here = [machine[int(n)] for n in visible if n]
trouble = os.environ.get("TROUBLE")
if trouble == "broken":
    raise ImportError("libcudart.so.13: cannot open shared object file")
version = types.SimpleNamespace(cuda=None if trouble == "cpu build" else "13.0", hip=None)
def is_available():
    if trouble == "old driver":
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old\\n(found version 11040)")
    return not trouble and bool(here)
cuda = types.SimpleNamespace(
    is_available=is_available, device_count=lambda: len(here),
    get_device_properties=lambda index: types.SimpleNamespace(name=here[index][0], major=here[index][1]),
)
open(os.environ["ASKED"], "a").write("asked ")
print("a greeting that a site's torch may print")
"""


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """A machine with traces of GPUs, on which the probe finds another torch; returns the file that it writes to."""
    (tmp_path / "torch.py").write_text(FAKE_TORCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "_may_have_gpu", lambda devices, pci: True)
    hardware._ask_torch.cache_clear()
    yield tmp_path / "asked"
    hardware._ask_torch.cache_clear()


def test_torch_tells_of_the_gpus_in_a_process_of_its_own(machine, monkeypatch):
    assert find_gpus() == Gpus((T4, H100, H100))
    assert find_gpus().note() is None
    assert machine.read_text() == "asked "  # once
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert find_gpus() == Gpus((H100, T4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_gpus() == Gpus()


@pytest.mark.parametrize(
    ("trouble", "note"),
    [
        ("old driver", "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)"),
        ("cpu build", "torch 9.9 is built for CPUs"),
    ],
)
def test_gpus_that_torch_cannot_use_are_a_note(machine, monkeypatch, trouble, note):
    monkeypatch.setenv("TROUBLE", trouble)
    found = find_gpus()
    assert found.found == ()
    assert found.note() == f"torch sees no GPU here, though the machine seems to have one: {note}"


def test_a_torch_that_cannot_be_asked(machine, monkeypatch):
    monkeypatch.setenv("TROUBLE", "broken")
    with pytest.raises(RuntimeError, match=r"\(ImportError: libcudart.*\); mend torch or the driver, or") as caught:
        find_gpus()
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("TROUBLE")
    assert len(find_gpus().found) == 3  # an error is not kept
    hardware._ask_torch.cache_clear()
    monkeypatch.setattr(hardware, "_PATIENCE_SECONDS", 0.001)
    with pytest.raises(RuntimeError, match="timed out after"):
        find_gpus()


def test_the_probe_agrees_with_the_torch_that_is_here():
    found = gpu_probe.probe()
    assert len(found["gpus"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)
    for index, gpu in enumerate(found["gpus"]):
        assert gpu["name"] == torch.cuda.get_device_name(index)
        with torch.cuda.device(index):
            assert gpu["bfloat16"] == torch.cuda.is_bf16_supported(including_emulation=False)


def pci_device(folder: Path, name: str, vendor: str, kind: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "vendor").write_text(f"{vendor}\n")
    (folder / name / "class").write_text(f"{kind}\n")


def test_traces_of_gpus(tmp_path, monkeypatch):
    devices, pci = tmp_path / "dev", tmp_path / "pci"
    devices.mkdir()

    def found() -> bool:
        return hardware._may_have_gpu(devices, pci)

    assert not found()
    pci_device(pci, "0000:00:01.0", "0x8086", "0x030000")  # another maker's display
    pci_device(pci, "0000:01:00.1", "0x10de", "0x040300")  # the sound of a graphics card
    (pci / "0000:02:00.0").mkdir()  # one that cannot be read
    for name in ("null", "nvidiactl", "nvme0", "dri"):
        (devices / name).touch()
    assert not found()
    for name in ("nvidia0", "nvidia12", "dxg", "kfd", "nvgpu"):
        (devices / name).touch()
        assert found(), name
        (devices / name).unlink()
    pci_device(pci, "0000:01:00.0", "0x10de", "0x030200")
    assert found()
    monkeypatch.setattr(hardware.sys, "platform", "darwin")
    assert hardware._may_have_gpu(tmp_path / "none", tmp_path / "none")


def test_precision():
    check_precision(["bfloat16"], ())  # a CPU computes in any
    check_precision(["auto", "float32"], (T4,))
    check_precision(["bfloat16"], (H100,))
    with pytest.raises(InputError, match="needs GPUs that compute it, got Tesla T4, which does not; use --precision"):
        check_precision(["float32", "bfloat16"], (H100, T4))


@pytest.fixture
def toolchain(tmp_path, monkeypatch):
    """Put programs into an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("CC", "CXX", "TORCH_INDUCTOR_INSTALL_GXX"):
        monkeypatch.delenv(name, raising=False)

    def put(name: str) -> None:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)

    return put


def test_compiling_on_a_cpu_needs_a_cpp_compiler(toolchain, monkeypatch):
    check_compile("auto", ())
    check_compile("off", ())
    toolchain("gcc")  # which compiles no C++
    with pytest.raises(
        InputError, match=r"needs a C\+\+ compiler, g\+\+ is not there; install one, or name yours in CXX"
    ):
        check_compile("on", ())
    toolchain("g++")
    check_compile("on", ())
    monkeypatch.setenv("CXX", "ccache mine++ -O2")
    with pytest.raises(InputError, match=r"ccache mine\+\+ -O2 is not there"):
        check_compile("on", ())
    toolchain("ccache")
    check_compile("on", ())


def test_compiling_on_gpus_needs_triton_a_c_compiler_and_a_gpu_that_is_new_enough(toolchain, monkeypatch):
    packages = set()
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: name in packages or None)
    toolchain("g++")
    with pytest.raises(InputError, match="the package triton"):
        check_compile("on", (H100,))
    packages.add("triton")
    with pytest.raises(InputError, match="a C compiler, gcc or clang is not there; install one, or name yours in CC"):
        check_compile("on", (H100,))
    toolchain("clang")
    check_compile("on", (H100, T4))
    with pytest.raises(InputError, match=r"7\.0 or more, got Tesla P100; leave --compile out or use off"):
        check_compile("on", (H100, P100))
    check_compile("auto", (P100,))


class TestCommand:
    """With GPUs that are made up: refused in one line with exit code 2, before anything is made or started."""

    @pytest.fixture
    def searched(self, tmp_path, monkeypatch, capfd):
        def search(gpus: Gpus, *arguments: str) -> Done:
            monkeypatch.setattr(hardware, "find_gpus", lambda: gpus)
            monkeypatch.setattr(
                "nls_tune.tune.starting.ray_session", lambda address: pytest.fail("Ray was to be started")
            )
            monkeypatch.chdir(tmp_path)
            done = Done(run_app(app, ["--dataset", "twonorm", "--out", "run", *arguments]), *capfd.readouterr())
            assert not (tmp_path / "run").exists()
            return done

        return search

    @pytest.mark.parametrize(
        ("gpus", "arguments", "parts"),
        [
            ((H100, T4), ("--precision", "bfloat16"), ("got Tesla T4", "use --precision float32 or auto")),
            ((H100, P100), ("--compile", "on"), ("got Tesla P100", "--compile on needs GPUs")),
            ((H100,), ("--set", "batch_size=4001"), ("4000 training samples, got 4001", "--set batch_size=N")),
            ((H100,), ("--trials-per-gpu", "100"), ("--trials-per-gpu", "100", "1 to 99")),
            ((), ("--trials-per-gpu", "2"), ("--trials-per-gpu 2 needs a GPU", "leave it out")),
            ((H100,), ("--cpus-per-trial", "100000"), ("--cpus-per-trial", "100000", "lower it")),
        ],
    )
    def test_refused(self, searched, gpus, arguments, parts):
        done = searched(Gpus(gpus), *arguments)
        assert done.has_failed_in_one_line(), done
        for part in parts:
            assert part in done.err

    def test_what_fits_goes_on_and_is_said(self, searched, monkeypatch):
        monkeypatch.setattr("nls_tune.tune.cluster.usable_cpus", lambda: 4)
        done = searched(Gpus((H100, H100)), "--precision", "bfloat16", "--trials-per-gpu", "3", "--dry-run")
        assert (done.code, done.err) == (0, "")
        assert "2 GPUs found" in done.out
        assert "--trials-per-gpu 3 needs 6 CPUs, there are 4: 4 at a time, at most 2 on a GPU" in " ".join(
            done.out.split()
        )

    def test_a_gpu_that_torch_does_not_see_is_said(self, searched):
        done = searched(Gpus((), "the driver is too old"), "--dry-run")
        assert (done.code, done.err) == (0, "")
        assert "Note: torch sees no GPU here, though the machine seems to have one: the driver is too old" in " ".join(
            done.out.split()
        )
