import pytest
from commands import SEARCH, ModulesAtTheEnd, started
from watching import ARGUMENTS, Reader, WatchedSearch


@pytest.fixture(scope="module")
def session():
    """A Ray session of the caller's. It has one CPU: two workers that import torch at once take twice as long."""
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def watched_search(tmp_path_factory: pytest.TempPathFactory) -> WatchedSearch:
    """One small search, run as a command with its output in files, and read all the while."""
    folder = tmp_path_factory.mktemp("search")
    run = folder / "run"
    modules = ModulesAtTheEnd(folder / "site")
    with Reader(run) as reader, started(*SEARCH, *ARGUMENTS, "--out", "run", folder=folder, env=modules.env) as program:
        done = program.wait(120)
    return WatchedSearch(done, run, reader, modules.names)
