from __future__ import annotations

import pytest
from commands import SEARCH, ModulesAtTheEnd, started
from watching import ARGUMENTS, Reader, WatchedSearch


@pytest.fixture(scope="session")
def watched_search(tmp_path_factory: pytest.TempPathFactory) -> WatchedSearch:
    """One small search, run as a command with its output in files, and read all the while."""
    folder = tmp_path_factory.mktemp("search")
    run = folder / "run"
    modules = ModulesAtTheEnd(folder / "site")
    with Reader(run) as reader, started(*SEARCH, *ARGUMENTS, "--out", "run", folder=folder, env=modules.env) as program:
        done = program.wait(120)
    return WatchedSearch(done, run, reader, modules.names)
