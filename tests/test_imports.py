"""What importing costs, and that every public name is there."""

from __future__ import annotations

import importlib
import pkgutil
import statistics
import subprocess
import sys

import pytest
from commands import SEARCH, ModulesAtTheEnd, environment, run, run_search

import nls_tune

HEAVY = ("torch", "torchvision", "ray", "pandas", "pyarrow", "optuna", "sklearn", "rich", "typer", "numpy")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    return done.stdout.strip()


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, time; start = time.perf_counter(); import nls_tune; seconds = time.perf_counter() - start; "
        f"print(seconds, *[name for name in {HEAVY} if name in sys.modules])"
    )
    found = [python(code).split() for _ in range(3)]
    assert [names for _, *names in found] == [[], [], []]
    assert statistics.median(float(seconds) for seconds, *_ in found) < 0.3


@pytest.mark.parametrize("module", ["nls_tune.search", "nls_tune.cli.main", "nls_tune.cli.exit"])
def test_the_commands_modules_load_neither_torch_nor_ray(module):
    loaded = python(f"import sys, {module}; print(*[name for name in {HEAVY[:3]} if name in sys.modules])")
    assert loaded == ""


def test_reading_results_needs_neither_torch_nor_ray():
    assert python(
        "import sys; from nls_tune import read_trials; print('torch' in sys.modules, 'ray' in sys.modules)"
    ) == ("False False")


def test_every_public_name_resolves():
    assert len(nls_tune.__all__) > 10
    for name in nls_tune.__all__:
        assert getattr(nls_tune, name).__name__ == name
        assert name in dir(nls_tune)
    with pytest.raises(AttributeError, match="no attribute 'gls_los'"):
        _ = nls_tune.gls_los


def test_the_version_is_known_also_in_a_clone_that_is_not_installed():
    assert python("import nls_tune; print(nls_tune.__version__)")[0].isdigit()


def test_every_module_can_be_imported_alone():
    names = [info.name for info in pkgutil.walk_packages(nls_tune.__path__, "nls_tune.")]
    assert {"nls_tune.search", "nls_tune.analysis.level_summaries", "nls_tune.datasets.cifar"} <= set(names)
    for name in names:
        importlib.import_module(name)


def test_help_is_quick_and_says_nothing_on_stderr(tmp_path):
    done = run_search("--help", folder=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.seconds < 3
    for option in ("--dataset", "--noise", "--space", "--set", "--num-trials", "--out", "--address", "--dry-run"):
        assert f"\n│ {option} " in done.out


def test_no_warning_and_no_torch_on_the_way_to_the_plan(tmp_path):
    done = run(SEARCH[0], "-W", "error", *SEARCH[1:], "--help", folder=tmp_path)
    assert (done.code, done.err) == (0, "")
    modules = ModulesAtTheEnd(tmp_path / "site")
    done = run(SEARCH[0], "-W", "error", *SEARCH[1:], "--dry-run", folder=tmp_path, env=modules.env)
    assert (done.code, done.err) == (0, "")
    assert not modules.names & {"torch", "torchvision", "ray", "pandas", "sklearn", "scipy"}
    assert "nls_tune.plan.plan" in modules.names
