"""README is short, and what it shows is run: its Python blocks, its examples, and its searches as far as their plan."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from commands import REPOSITORY
from fake_runs import write_fake_run
from pages import Reader, blocks_of, sentences, stand_ins
from test_examples import ARGUMENTS

from nls_tune.cli import main, search
from nls_tune.cli.exit import run_app

README = REPOSITORY / "README.md"
BLOCKS = blocks_of(README)
LINES = [line for block in BLOCKS if block.kind == "bash" for line in block.code.splitlines()]
#: What .ci/run does itself, in this order, with README's own lines.
SETUP = ["python3 -m venv .venv && . .venv/bin/activate", 'pip install -c constraints.txt -e ".[test]"']
SEARCHES = [line for line in LINES if line.startswith("python -m nls_tune.search")]
EXAMPLES = [line for line in LINES if line.startswith("python examples/")]


def test_readme_is_two_pages():
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") <= 200
    assert len(text.encode()) <= 12_000


def test_no_sentence_has_more_than_35_words():
    assert [s for s in sentences(README) if len(s.split()) > 35] == []


def test_the_first_lines_set_up_search_report_and_test():
    assert LINES[:5] == [
        *SETUP, "python -m nls_tune.search --out runs/first", "nls-tune report runs/first", "python -m pytest -n 2",
    ]  # fmt: skip


def test_every_line_is_run_by_a_test_or_by_ci():
    assert {block.kind for block in BLOCKS} == {"bash", "python", "text"}
    known = {*SETUP, "python -m pytest -n 2", "nls-tune report runs/first", *SEARCHES, *EXAMPLES}
    assert [line for line in LINES if line not in known] == []
    for line in EXAMPLES:
        _, program, *arguments = shlex.split(line)
        assert ARGUMENTS[Path(program).name] == tuple(arguments)  # so runs in test_examples


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith("https:"):
            continue
        assert (REPOSITORY / path).exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (REPOSITORY / path).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


def test_the_answer_is_that_of_the_run_in_the_picture(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    assert run_app(main.app, ["analyze", str(REPOSITORY / "benchmarks" / "evidence" / "default_run")]) == 0
    said = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    (shown,) = (block for block in BLOCKS if block.kind == "text")
    assert [line for line in shown.code.splitlines() if line not in said] == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, module in stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    reader = Reader(README)
    for block in BLOCKS:
        if block.kind == "python":
            reader.follow(block)
    assert "finished" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("line", SEARCHES)
def test_search_commands_plan(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(line)[3:]
    assert run_app(search.app, [*arguments, *([] if "--dry-run" in arguments else ["--dry-run"])]) == 0
    assert "noise level" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_gives_its_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_fake_run(tmp_path / "runs" / "first", trials=12, epochs=10)
    assert run_app(main.app, ["report", "runs/first"]) == 0
    assert (tmp_path / "runs" / "first" / "report.html").stat().st_size > 1_000_000
