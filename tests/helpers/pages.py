"""Runs the code that Markdown pages show, block after block, in a folder of its own.

- ``python`` blocks of a page share their names; ``bash`` blocks run as they stand, plain commands of this package
  (of a search: only its plan) in this process, because importing takes longer than they do;
- a block with ``title="FILE"`` is written to that file, and a shell script is checked for its syntax;
- ``text`` and ``console`` are not run;
- ``<!-- test: real data -->`` before a block: it needs the CIFAR files, found through NLS_TUNE_DATA.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from commands import REPOSITORY, environment
from torch import nn

from nls_tune.cli import main, search
from nls_tune.cli.exit import run_app

RUN = ("python", "bash")
NOT_RUN = ("text", "console")
_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<mark>[\w ]+) -->\n)?^```(?P<kind>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, its code, the file that it is, and what its comment says of the test."""

    kind: str
    code: str
    title: str | None
    mark: str | None
    line: int


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page; a line ``--8<-- "FILE"`` stands for a file of the repository."""
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") + text.startswith("```") == 2 * len(list(_BLOCK.finditer(text))), f"{page}: odd fences"
    found = []
    for match in _BLOCK.finditer(text):
        code = re.sub(
            r'^--8<-- "([^"]+)"\n', lambda m: (REPOSITORY / m[1]).read_text(encoding="utf-8"), match["code"], flags=re.M
        )
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(match["kind"], code, match["title"], match["mark"], line))
    return found


class Reader:
    """Somebody who reads a page and does what it says, in the present folder."""

    def __init__(self, page: Path) -> None:
        self._page = page
        self._names: dict[str, Any] = {"__name__": page.stem}

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        where = f"{self._page.relative_to(REPOSITORY)}, line {block.line}"
        if block.mark == "real data" and not os.environ.get("NLS_TUNE_DATA"):
            return
        if block.title is not None:
            Path(block.title).write_text(block.code, encoding="utf-8")
            if block.kind == "bash":
                _shell("-n", block.title, where=where)
        elif block.kind == "python":
            # At the block's place, so that a traceback names the line of the page.
            code = compile("\n" * (block.line - 1) + block.code, str(self._page), "exec")
            exec(code, self._names)
        elif block.kind == "bash":
            lines = block.code.splitlines()
            if all(map(_is_plain, lines)):
                for line in lines:
                    assert run_app(*_program(line)) == 0, f"{where}: {line}"
            else:
                _shell("-euo", "pipefail", "-c", block.code, where=where)


def add_command(folder: Path) -> str:
    """Write the command ``nls-tune`` of this clone to a folder; return the PATH that has it first."""
    command = folder / "nls-tune"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m nls_tune.cli.main "$@"\n')
    command.chmod(0o755)
    return os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])


def _is_plain(line: str) -> bool:
    plan = line.startswith("python -m nls_tune.search ") and line.endswith(" --dry-run")
    return (plan or line.startswith("nls-tune ")) and not re.search(r"[|&<>$]", line)


def _program(line: str) -> tuple[typer.Typer, list[str]]:
    words = shlex.split(line)
    return (main.app, words[1:]) if words[0] == "nls-tune" else (search.app, words[3:])


def _shell(*arguments: str, where: str) -> None:
    done = subprocess.run(["bash", *arguments], env=environment(), capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"


class _Trainer:
    """What Lightning's trainer does with a module, in five lines."""

    def __init__(self, max_epochs: int) -> None:
        self.max_epochs = max_epochs

    def fit(self, module: Any, loader: Any) -> None:
        optimizer = module.configure_optimizers()
        for _ in range(self.max_epochs):
            for index, batch in enumerate(loader):
                optimizer.zero_grad()
                module.training_step(batch, index).backward()
                optimizer.step()


def stand_ins() -> dict[str, types.ModuleType]:
    """Return small modules in place of Lightning and transformers, which the tests do not install."""
    lightning, transformers = types.ModuleType("lightning"), types.ModuleType("transformers")
    lightning.LightningModule = nn.Module  # type: ignore[attr-defined]
    lightning.Trainer = _Trainer  # type: ignore[attr-defined]
    transformers.Trainer = object  # type: ignore[attr-defined]
    return {"lightning": lightning, "transformers": transformers}


def sentences(page: Path) -> list[str]:
    """Return the sentences of a page's prose: without code, tables, headings, comments and addresses of links."""
    text = re.sub(r"^```.*?^```$|<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^(\||#).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^ *(?:[-*]|\d+\.) ", "\n", text, flags=re.MULTILINE)  # an item is a sentence, or several
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n|(?<=[.!?])[*\"]*\s", text) if part.strip()]
