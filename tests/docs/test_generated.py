"""Pages that follow from code and evidence are what their program would write now, and the site builds strictly."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from commands import REPOSITORY

DOCS = REPOSITORY / "docs"
TEMPLATES = sorted((DOCS / "templates").rglob("[!_]*.md"))
PAGES = [path.relative_to(DOCS / "templates").as_posix() for path in TEMPLATES]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    # Those that need benchmarks import all of torch, Ray and matplotlib.
    "page",
    [pytest.param(p, marks=pytest.mark.slow if p in ("evidence/gains.md", "evidence/speed.md") else []) for p in PAGES],
)
def test_a_page_is_what_code_and_evidence_say(page, generate, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    kept = (DOCS / page).read_text(encoding="utf-8")
    assert generate.render(page) == kept, "python docs/generate.py writes it anew"


def test_the_proven_figures_in_readme_are_those_of_the_evidence(generate):
    assert generate.readme() == (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_every_piece_of_evidence_is_shown():
    shown = "".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES if page.startswith("evidence/"))
    for file in (REPOSITORY / "benchmarks" / "evidence").glob("*.json"):
        assert f"`benchmarks/evidence/{file.name}` (" in shown, file.name


def test_no_measured_figure_is_written_by_hand():
    for page in PAGES:
        text = (DOCS / "templates" / page).read_text(encoding="utf-8")
        prose = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", text)
        figures = set(re.findall(r"[−+\d.]*\d\.\d+ (?:%|points|s\b|ms\b|MB\b)", prose))
        # The distance that the replays call close; the spread of simulated seeds.
        assert figures <= {"0.5 points", "0.3 points"}, page


def test_a_column_needs_a_meaning_and_a_meaning_a_column(generate):
    schema = [SimpleNamespace(name="lr", type="double", nullable=False)]
    assert generate.columns(schema, {"lr": "Rate."})[0]["meaning"] == "Rate."
    with pytest.raises(KeyError):
        generate.columns(schema, {})
    with pytest.raises(KeyError, match="gone"):
        generate.columns(schema, {"lr": "Rate.", "gone": "Old."})


def test_the_reference_has_every_command_and_option(capsys):
    from nls_tune.cli.exit import run_app
    from nls_tune.cli.main import app

    page = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    for command in re.findall(r"^## nls-tune ?(.*)$", page, re.MULTILINE):
        assert run_app(app, [*command.split(), "--help"]) == 0
        section = page.split(f"## nls-tune {command}".rstrip() + "\n")[1].split("\n## ")[0]
        for option in re.findall(r"^│ (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE):
            assert option == "--help" or f"`{option}" in section, (command, option)


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("index.html")}
    assert {"index.html", "reference/python/index.html", "evidence/gains/index.html"} <= pages
    python = (tmp_path / "site" / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    assert "such as class indices of dtype int32" in " ".join(python.split())  # gls_loss's own docstring
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert any("noise-cancelling" in entry["text"] for entry in index["docs"])
