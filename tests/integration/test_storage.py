"""A search whose run is mirrored to an object store: killed, gone on with from there elsewhere, read from there.

The store is a real server of S3's protocol (moto), in a process of its own on this machine.
"""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from commands import SEARCH, Done, run, run_search, started, wait_until
from pyarrow import fs

from nls_tune import read_trials
from nls_tune.runs.storage.store import Store

pytestmark = pytest.mark.timeout(400)
#: Four trials that nothing stops; two run at a time, each for a second or two.
ARGUMENTS = (
    "--dataset", "twonorm",
    "--noise", "symmetric:0.4", "--epochs", "60", "--num-trials", "4", "--train-size", "500", "--scheduler", "none",
    "--confirm-seeds", "0", "--out", "run",
)  # fmt: skip
COMMAND = (sys.executable, "-m", "nls_tune.cli.main")


@dataclass(frozen=True)
class Server:
    """A server of S3 with one bucket, and the environment in which programs find it."""

    address: str
    env: dict[str, str]

    def url(self, folder: str) -> str:
        return f"s3://bucket/{folder}"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    address = f"127.0.0.1:{port}"
    env = {
        "AWS_ENDPOINT_URL": f"http://{address}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true", "XDG_CACHE_HOME": str(folder / "cache"),
    }  # fmt: skip
    with started(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), folder=folder) as program:

        def answers() -> bool:
            with closing(socket.socket()) as asking:
                return asking.connect_ex(("127.0.0.1", port)) == 0

        wait_until(lambda: answers() or not program.running, "the server answers")
        there = fs.S3FileSystem(
            endpoint_override=address, scheme="http", access_key="key", secret_key="secret", allow_bucket_creation=True
        )
        there.create_dir("bucket")
        yield Server(address, env)


@dataclass(frozen=True)
class Continued:
    """A search that was killed when trials had ended, and went on in another folder, of which it knows the URL."""

    killed: Path
    run: Path
    url: str
    second: Done
    trials_there: set[str]
    finished: Done
    analyzed: Done


@pytest.fixture(scope="module")
def continued(server, tmp_path_factory) -> Continued:
    first, other = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("other")
    url = server.url("runs/first")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        store = Store(url)

        def rows() -> set[str]:
            return {name for name in store.files() if name.startswith("trials/") and "empty" not in name}

        arguments = (*ARGUMENTS, "--storage", url)
        with started(*SEARCH, *arguments, folder=first, env=server.env) as program:
            wait_until(lambda: ".owner" in store.files() or not program.running, "the search holds its storage", 100)
            second = run_search(*arguments, folder=other, env=server.env)
            wait_until(lambda: rows() or not program.running, "a trial is there", 200)
            program.kill()
        trials_there = rows()
        finished = run_search(*arguments, folder=other, env=server.env, seconds=200)
        analyzed = run(*COMMAND, "analyze", url, folder=first, env=server.env)
    return Continued(first / "run", other / "run", url, second, trials_there, finished, analyzed)


def rows_of(path: Path) -> pd.DataFrame:
    return read_trials(path).set_index("trial_id").sort_index()


def test_a_second_search_on_the_same_url_is_refused(continued):
    assert continued.second.has_failed_in_one_line(), continued.second
    assert "another search (process " in continued.second.err
    assert f"is writing to {continued.url}" in continued.second.err


def test_it_goes_on_in_an_empty_folder_and_trains_nothing_again(continued):
    assert (continued.finished.code, continued.finished.err) == (0, "")
    assert f"Stored: {continued.url}" in continued.finished.out
    content = json.loads((continued.run / "run.json").read_text())
    assert (content["status"], len(content["sessions"])) == ("finished", 2)
    before, after = rows_of(continued.killed), rows_of(continued.run)
    ended = [Path(name).stem for name in continued.trials_there]
    assert 1 <= len(ended) < 4
    pd.testing.assert_frame_equal(after.loc[sorted(ended)], before.loc[sorted(ended)], check_dtype=False)
    assert len(after) == after.index.nunique() == 4
    assert continued.finished.out.count("/4] symmetric:0.4") == 4 - len(ended)


def test_the_table_is_printed_from_the_url(continued):
    assert (continued.analyzed.code, continued.analyzed.err) == (0, "")
    assert "symmetric:0.4" in continued.analyzed.out
    assert f"nls-tune analyze --details {continued.url}" in continued.analyzed.out


def test_a_finished_run_is_resumed_and_checked_by_its_url(continued, server, tmp_path):
    done = run(*COMMAND, "resume", continued.url, "--out", "copy", folder=tmp_path, env=server.env)
    assert (done.code, done.err) == (0, "")
    assert rows_of(tmp_path / "copy").equals(rows_of(continued.run))
    other = run_search(*ARGUMENTS, "--seed", "1", "--storage", continued.url, folder=tmp_path, env=server.env)
    assert other.has_failed_in_one_line()
    assert f"{continued.url} is a run with other settings: settings.seed: 0 -> 1" in other.err
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("url", "changes", "message"),
    [
        ("s3://no-such-bucket/x", {}, "there is no such bucket"),
        ("s3://bucket/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "it cannot be reached"),
    ],
)
def test_a_storage_that_does_not_work_ends_it_before_anything_starts(server, tmp_path, url, changes, message):
    done = run_search(*ARGUMENTS, "--storage", url, folder=tmp_path, env={**server.env, **changes}, seconds=30)
    assert done.has_failed_in_one_line(), done
    assert message in done.err
    assert not [path for path in tmp_path.iterdir() if path.name == "run"]
