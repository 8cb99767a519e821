"""What importing costs, and that every public name is there."""

import importlib
import pkgutil
import subprocess
import sys

import pytest
from commands import SEARCH, ModulesAtTheEnd, environment, run

import nls_tune

HEAVY = ("torch", "torchvision", "ray", "pandas", "pyarrow", "optuna", "sklearn", "rich", "typer", "numpy")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import nls_tune", HEAVY),
        ("import nls_tune.search, nls_tune.cli.main, nls_tune.cli.exit", HEAVY[:3]),
        ("import nls_tune.datasets", (*HEAVY[:3], "pyarrow", "PIL", "sklearn", "rich")),
        ("from nls_tune import read_trials; read_trials", HEAVY[:3]),
        ("from nls_tune import GLSLoss, estimate_transition, gls_loss", ("ray", "pandas", "pyarrow", "optuna")),
    ],
)
def test_an_import_loads_nothing_heavy(statement, absent):
    assert python(f"import sys; {statement}; print(*[name for name in {absent} if name in sys.modules])") == ""


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


@pytest.mark.parametrize(
    ("option", "absent", "present"),
    [
        ("--help", {*HEAVY[:6], "scipy"}, "nls_tune.cli"),
        pytest.param(
            "--dry-run", {"torch", "torchvision", "ray", "pandas", "sklearn", "scipy"}, "nls_tune.plan.plan",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_help_and_the_plan_need_neither_torch_nor_ray_and_give_no_warning(tmp_path, option, absent, present):
    modules = ModulesAtTheEnd(tmp_path / "site")
    done = run(SEARCH[0], "-W", "error", *SEARCH[1:], option, folder=tmp_path, env=modules.env)
    assert (done.code, done.err) == (0, "")
    assert not modules.names & absent
    assert present in modules.names
    if option == "--help":
        for name in ("--dataset", "--noise", "--space", "--set", "--num-trials", "--out", "--address", "--dry-run"):
            assert f"\n│ {name} " in done.out
