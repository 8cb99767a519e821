import gc
import shutil
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import check_search_settings

# A test has a limit of its own (``timeout`` in pyproject.toml); one of 0.2 s an example fails where a machine is busy.
hypothesis.settings.register_profile("suite", deadline=None)
#: For the edit loop. Tests that want fewer or more say so as a part of the profile's number.
hypothesis.settings.register_profile("fast", deadline=None, max_examples=20)


#: Folders whose tests start Ray or whole programs.
_SLOW = {"integration", "benchmarks"}
#: Where searches run in Ray: one after the other, since each of them takes all cores.
_RAY = ("tests/integration/", "tests/test_examples.py", "tests/test_notebook.py")


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # imports leave nothing to collect
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script runs the tests in its background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.load_profile("fast" if "not slow" in config.option.markexpr else "suite")


class _OneRay(LoadFileScheduling):
    """With ``-n 2``: all tests that start Ray in one process, the files of the others wherever there is room."""

    def _split_scope(self, nodeid: str) -> str:
        return "Ray" if nodeid.startswith(_RAY) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _OneRay:
    return _OneRay(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts Ray or whole programs: the fast set is the rest."""
    for item in items:
        if _SLOW & set(item.path.parts):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Leave what the imports have made out of garbage collections, each of which it makes ten times as long."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # at their end some modules complain of what they find uncollected


@pytest.fixture(scope="session")
def suite_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of all tests that need none of their own, so that images are decoded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def own_environment(suite_cache: Path):
    """Keep all tests away from the cache and the Ray clusters of whoever runs them."""
    ray_folder = tempfile.mkdtemp(prefix="nls-")  # Ray puts sockets there, whose paths must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(suite_cache))
        patch.setenv("RAY_TMPDIR", ray_folder)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
    shutil.rmtree(ray_folder, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_plan() -> SearchPlan:
    """A plan of four short trials at one noise level, without ASHA."""
    settings = check_search_settings(
        dataset="twonorm",
        noise=("symmetric:0.4",),
        preset="cpu",
        epochs=6,
        num_trials=4,
        train_size=500,
        scheduler="none",
    )
    return make_plan(settings, 0, progress=False)
