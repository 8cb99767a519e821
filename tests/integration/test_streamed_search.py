"""A search whose images are streamed from their file by the workers has the rows of one that holds them."""

import pytest
from commands import run_search
from own_files import labels_of, pixels, write_folder
from pandas.testing import assert_frame_equal

from nls_tune import read_trials
from nls_tune.datasets.mapped import STREAM_VARIABLE

FLAGS = ("--images", "photos", "--test", "0.2", "--model", "small_cnn", "--num-trials", "4", "--epochs", "4",
         "--confirm-seeds", "1", "--max-concurrent", "1", "--scheduler", "none", "--tta", "mirror")  # fmt: skip
#: Columns that tell of one run, its times or its processes.
OTHER = ("run_id", "slot", "train_seconds", "wall_seconds", "started_at", "finished_at")


@pytest.mark.timeout(400)
def test_a_search_on_streamed_images_has_the_same_rows(tmp_path):
    images = pixels(160, size=16)
    images[::2, :8] //= 2  # something to learn
    write_folder(tmp_path / "photos", images, labels_of(160))
    found = {}
    for name, limit in (("held", None), ("streamed", "0")):
        env = {STREAM_VARIABLE: limit, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = run_search(*FLAGS, "--out", name, folder=tmp_path, env=env, seconds=180)
        assert (done.code, done.err) == (0, "")
        rows = read_trials(tmp_path / name)
        found[name] = rows.drop(columns=[c for c in OTHER if c in rows]).sort_values("trial_id", ignore_index=True)
    assert len(found["held"]) >= 4
    assert (found["held"]["epochs_reused"] > 0).any()  # warm-ups were shared
    assert_frame_equal(found["held"], found["streamed"])
