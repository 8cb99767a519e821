"""What README shows is run: its Python blocks, and its search commands as far as their plan."""

import os
import re
import shlex
from pathlib import Path

import pytest

from nls_tune.cli import search
from nls_tune.cli.exit import run_app

pytestmark = pytest.mark.slow

README = Path(__file__).parent.parent / "README.md"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def _searches() -> list[str]:
    lines = "\n".join(_blocks("bash")).splitlines()
    found = [line for line in lines if line.startswith("python -m nls_tune.search")]
    # A running cluster is a test of its own.
    return [line for line in found if "--address" not in line]


def test_there_is_something_to_run():
    assert len(_blocks("python")) >= 3
    assert len(_searches()) >= 5


@pytest.mark.timeout(180)
def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in _blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert "symmetric:0.4" in capsys.readouterr().out


@pytest.mark.parametrize("line", _searches())
def test_search_commands_plan(line, capsys):
    arguments = shlex.split(line)[3:]
    if "cifar" in line and not os.environ.get("NLS_TUNE_DATA"):
        pytest.skip("needs the real CIFAR files, found through NLS_TUNE_DATA")
    assert run_app(search.app, [*arguments, "--dry-run"]) == 0
    assert "noise level" in capsys.readouterr().out


def test_the_space_that_readme_shows_is_one(tmp_path):
    from nls_tune.spaces.reading import load_space

    (block,) = _blocks("yaml")
    path = tmp_path / "space.yaml"
    path.write_text(block, encoding="utf-8")
    assert load_space(path, preset="cpu").budget.train_size == 5000
    assert load_space(path, preset="gpu").budget.train_size is None


def test_the_sentence_under_the_figure_is_true_to_the_kept_run(monkeypatch):
    root = README.parent
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import readme_figure

    text = " ".join(README.read_text(encoding="utf-8").split())
    assert readme_figure.sentence() in text
    assert f"]({readme_figure.FIGURE.relative_to(root)})" in text
    assert f"]({readme_figure.EVIDENCE.relative_to(root)})" in text
    assert readme_figure.FIGURE.read_bytes().startswith(b"\x89PNG")
