"""The wheel: what is in it, and that it works where nothing else of the repository is."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from commands import REPOSITORY, SEARCH, run_in_terminal, run_search

from nls_tune import read_trials
from nls_tune.spaces.reading import shipped_spaces

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = (sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(REPOSITORY))
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the package as pip installs it; the packages that it needs are those of this environment."""
    folder = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder))
    subprocess.run((*command, str(wheel)), check=True, timeout=100)
    return folder


def names_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_holds_the_spaces_the_licence_and_the_type_marker(wheel):
    names = names_of(wheel)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert {"nls_tune/__init__.py", "nls_tune/py.typed", "nls_tune/search.py"} <= names
    folder = REPOSITORY / "search_spaces"
    spaces = {f"nls_tune/_search_spaces/{file.relative_to(folder)}" for file in folder.rglob("*.yaml")}
    assert len(spaces) > 5
    assert spaces <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_it_holds_every_module_and_nothing_else(wheel):
    modules = {str(file.relative_to(REPOSITORY)) for file in (REPOSITORY / "nls_tune").rglob("*.py")}
    names = {name for name in names_of(wheel) if ".dist-info/" not in name}
    assert modules <= names
    other = {name for name in names - modules if not name.startswith("nls_tune/_search_spaces/")}
    names = ("page.html.j2", "page.css", "page.js", "suspects.html.j2", "theme.js", "unpack.js")
    templates = {f"nls_tune/report/html/templates/{name}" for name in names}
    assert other == {"nls_tune/py.typed", *templates}


def test_it_names_its_command_and_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        (commands,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        text = archive.read(metadata).decode()
        assert "nls-tune = nls_tune.cli.main:main" in archive.read(commands).decode()
    for package in ("optuna", "torch", "ray[tune]", "pyarrow", "pyyaml"):
        assert f"\nRequires-Dist: {package}" in text
    assert re.search(r"^Requires-Python: .*>=3\.11", text, re.MULTILINE)


def test_installed_it_plans_and_searches_anywhere_with_a_live_table_in_a_terminal(installed, tmp_path):
    env = {"PYTHONPATH": str(installed)}
    planned = run_search("--dry-run", folder=tmp_path, env=env)
    assert (planned.code, planned.err) == (0, "")
    arguments = (
        "--dataset",
        "twonorm",
        "--noise",
        "symmetric:0.4",
        "--epochs",
        "20",
        "--num-trials",
        "4",
        "--train-size",
        "500",
    )
    code, text = run_in_terminal((*SEARCH, *arguments, "--confirm-seeds", "0", "--out", "run"), tmp_path, env)
    assert code == 0, text
    assert len(read_trials(tmp_path / "run")) == 4
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert re.search(r"noise level\s+done\s+now\s+stopped\s+diverged\s+failed", plain)
    assert re.search(r"symmetric:0\.4\s+[0-4]/4\s+[0-2]\s", plain)
    assert "of 4 trials" in plain
    assert "[1/4]" not in plain  # lines are for those who have no terminal
    end = plain[plain.rindex("of 4 trials") :]
    assert re.search(r"symmetric:0\.4: (use|not trained enough) ", end)
    assert "Results: " in end


def test_installed_it_knows_the_spaces_of_the_repository_and_its_version(installed, tmp_path):
    code = (
        "import nls_tune; from nls_tune.spaces.reading import shipped_spaces; "
        "print(nls_tune.__file__, nls_tune.__version__, *shipped_spaces())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    file, version, *spaces = done.stdout.split()
    assert Path(file) == installed / "nls_tune" / "__init__.py"
    assert version[0].isdigit()
    assert spaces == shipped_spaces()
