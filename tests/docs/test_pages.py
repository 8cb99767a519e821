"""What the site shows is run: every page's code, block after block, as a reader would."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from commands import REPOSITORY, environment
from fake_runs import write_fake_run
from pages import NOT_RUN, RUN, Reader, add_command, blocks_of, sentences, stand_ins

from nls_tune.cli import main
from nls_tune.cli.exit import run_app
from nls_tune.datasets.registry import DATASETS
from nls_tune.plan.settings import SearchSettings
from nls_tune.spaces.networks import NETWORKS

DOCS = REPOSITORY / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if DOCS / "templates" not in page.parents]


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def pages_to_run() -> list[object]:
    """The pages with code; those whose first line says so, or that read CIFAR, are slow."""
    having = [page for page in PAGES if any(block.kind in RUN for block in blocks_of(page))]
    slow = [pytest.mark.slow, pytest.mark.timeout(300)]
    words = ("<!-- test: slow -->", "<!-- test: real data -->")
    return [
        pytest.param(page, id=name_of(page), marks=slow if any(w in page.read_text() for w in words) else [])
        for page in having
    ]


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory) -> Path:
    folder, levels = tmp_path_factory.mktemp("kept") / "run", ("symmetric:0.2", "pairflip:0.3")
    return write_fake_run(folder, levels=levels, trials=12, epochs=20, num_val=4000, confirm_seeds=3)


@pytest.mark.parametrize("page", pages_to_run())
def test_a_page_can_be_followed(page, kept_run, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", add_command(tmp_path_factory.mktemp("bin")))
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    for name, module in stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    if "<!-- test: with runs/first -->" in page.read_text(encoding="utf-8"):
        shutil.copytree(kept_run, tmp_path / "runs" / "first")
    reader = Reader(page)
    for block in blocks_of(page):
        reader.follow(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_is_run_or_says_by_its_kind_that_it_is_not(page):
    for block in blocks_of(page):
        assert block.kind in (*RUN, *NOT_RUN) or block.title, f"{page}, line {block.line}: kind {block.kind!r}"


def test_the_loss_of_the_trainer_is_that_of_its_rate(monkeypatch):
    import torch

    from nls_tune import gls_loss

    for name, module in stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    names: dict[str, object] = {}
    (code,) = (b.code for b in blocks_of(DOCS / "tutorials" / "using-the-answer.md") if "NoisyTrainer" in b.code)
    exec(code, names)

    class Output:
        logits = torch.randn(8, 3)

    trainer, labels = names["NoisyTrainer"](), torch.randint(3, (8,))
    trainer.smooth_rate = -0.5
    loss, outputs = trainer.compute_loss(lambda **inputs: Output, {"labels": labels}, return_outputs=True)
    assert outputs is Output
    assert torch.equal(loss, gls_loss(Output.logits, labels, -0.5))


def test_the_menu_has_every_page():
    class Loader(yaml.SafeLoader):
        """Reads what mkdocs reads, without its own tags."""

    menu = yaml.load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]

    def places(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [place for value in values for place in places(value)]

    assert sorted(places(menu)) == sorted(map(name_of, PAGES))


def test_the_reference_names_every_dataset_and_every_network():
    text = (DOCS / "reference" / "noise-and-data.md").read_text()
    rows = re.findall(r"^\| `(\w+)`( \(default\))? \| (\d+) \| .* \| ([\d,]+) \| (.*) \|$", text, re.MULTILINE)
    assert [(name, *facts) for name, _, *facts in rows] == [
        (name, str(info.num_classes), f"{info.num_labelled:,}", ", ".join(info.default_levels))
        for name, info in DATASETS.items()
    ]
    assert [name for name, default, *_ in rows if default] == [SearchSettings.dataset]
    networks = text.partition("\n## Networks\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", networks)) == set(NETWORKS)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "gains.md"], ids=name_of)
def test_a_sentence_is_short_enough_to_read(page):
    assert [s for s in sentences(page) if len(s.split()) > 40] == []


def test_the_answer_that_is_explained_is_that_of_the_kept_run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    kept = REPOSITORY / "benchmarks" / "evidence" / "twonorm_run"
    assert run_app(main.app, ["analyze", str(kept)]) == 0
    said = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    (shown,) = (b for b in blocks_of(DOCS / "tutorials" / "reading-the-answer.md") if b.kind == "text")
    assert [line for line in shown.code.splitlines() if line not in said] == []
