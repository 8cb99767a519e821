import dataclasses
import os
from pathlib import Path

import pytest
from fake_cifar import NUM_TEST, NUM_TRAIN, write_cifar_parquet

from nls_tune.datasets import DATASETS, DatasetInfo, Source, load_source
from nls_tune.datasets.locations import DATA_VARIABLE

_REAL = Path(os.environ[DATA_VARIABLE]).absolute() if os.environ.get(DATA_VARIABLE) else None


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep every test away from the data and the cache of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real files; the variable was read before `own_folders` took it away."""
    if _REAL is None or not _REAL.is_dir():
        pytest.skip(f"needs {DATA_VARIABLE}, the folder of the real CIFAR files")
    return _REAL


@pytest.fixture(scope="session")
def load_real(real_data: Path, suite_cache: Path):
    loaded: dict[str, Source] = {}

    def load(name: str) -> Source:
        if name not in loaded:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(suite_cache))
                patch.setenv(DATA_VARIABLE, str(real_data))
                loaded[name] = load_source(name, progress=False)
        return loaded[name]

    return load


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch):
    """Make the CIFAR datasets expect a few samples only."""
    for name in ("cifar10", "cifar100", "cifar10n", "cifar100n"):
        info = dataclasses.replace(DATASETS[name], num_labelled=NUM_TRAIN, num_test=NUM_TEST)
        monkeypatch.setitem(DATASETS, name, info)
    return DATASETS


@pytest.fixture
def small_cifar10(small: dict[str, DatasetInfo], tmp_path: Path) -> Path:
    """A folder with a small CIFAR-10 in it."""
    write_cifar_parquet(tmp_path / "data" / "cifar10")
    return tmp_path / "data"
