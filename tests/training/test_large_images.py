"""Two gigabytes of images in a process that may have one gigabyte of private memory for them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import environment

from nls_tune.datasets.mapped import STREAM_VARIABLE

HELPERS = Path(__file__).parents[1] / "helpers"
SIDE, NUMBER = 128, 43_700  # 2.15 GB
ALLOWED = 1_000_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (NUMBER, SIDE, SIDE, 3))
    block = np.random.default_rng(0).integers(0, 256, (500, SIDE, SIDE, 3), dtype=np.uint8)
    for start in range(0, NUMBER, len(block)):
        some = images[start : start + len(block)]
        some[:] = block[: len(some)]
        # Different images, by their numbers: equal ones would stand on one side of every split.
        some.reshape(len(some), -1)[:, :4] = (
            np.arange(start, start + len(some), dtype="<u4").view(np.uint8).reshape(-1, 4)
        )
    del images, some
    np.save(folder / "labels.npy", np.arange(NUMBER) % 2)
    yield folder
    for path in folder.rglob("*.npy"):  # pytest keeps folders of earlier runs
        path.unlink()


def run(files: Path, stream_bytes: int) -> subprocess.CompletedProcess[str]:
    env = environment({STREAM_VARIABLE: str(stream_bytes), "XDG_CACHE_HOME": str(files / "cache")})
    env["PYTHONPATH"] += f":{HELPERS}"
    command = [sys.executable, str(HELPERS / "large_images.py"), "images.npy", "labels.npy", str(ALLOWED)]
    return subprocess.run(command, cwd=files, env=env, capture_output=True, text=True, check=False)


@pytest.mark.timeout(400)
def test_images_of_twice_the_memory_are_decoded_trained_on_and_evaluated(files):
    """What is limited is RLIMIT_DATA, the private memory of the process, to 1 GB above that of its imports.

    Maps of files do not count (see ``large_images``). The machine of this test has enough memory for the images, so a
    variable says from where on they are streamed. As a check of the limit, the same program may not hold them.
    """
    done = run(files, 256 << 20)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["kind"] == "MappedImages"
    assert found["image_bytes"] == NUMBER * SIDE * SIDE * 3 > 2 * ALLOWED
    assert found["used_above_imports"] < ALLOWED
    assert all(np.isfinite(found["metrics"]))
    held = run(files, 10**12)
    assert held.returncode != 0
    assert "Unable to allocate" in held.stderr or "memory" in held.stderr.lower(), held.stderr[-2000:]
