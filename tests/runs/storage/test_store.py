"""Storages by their URLs: what they do with files, and what is said where they do not work."""

import os
import time
from types import SimpleNamespace

import pytest
from pyarrow import fs

from nls_tune.errors import InputError
from nls_tune.machine.provenance import without_password
from nls_tune.runs.owner import living_owner, owned
from nls_tune.runs.storage import store as store_module
from nls_tune.runs.storage.opening import is_url, reason_of, resolved
from nls_tune.runs.storage.store import Store


@pytest.fixture(params=["local", "memory", "pyarrow's own"])
def store(request, tmp_path) -> Store:
    name = f"{tmp_path.name}-{id(request)}"
    urls = {"local": f"file://{tmp_path}/there", "memory": f"memory://{name}/there", "pyarrow's own": "mock:///there"}
    return Store(urls[request.param])


def test_files_come_back_as_they_were_written(store):
    store.check()
    assert store.files() == {}
    store.write("run.json", b"one")
    store.write("trials/abc.parquet", b"longer")
    store.write("run.json", memoryview(b"two!"))
    assert store.read("run.json") == b"two!"
    assert {name: state.size for name, state in store.files().items()} == {"run.json": 4, "trials/abc.parquet": 6}
    assert store.state("trials/abc.parquet").size == 6
    store.remove("run.json")
    store.remove("run.json")
    for missing in (lambda: store.read("run.json"), lambda: store.state("run.json"), lambda: store.state("trials")):
        with pytest.raises(FileNotFoundError):
            missing()


def test_a_file_that_could_not_be_written_whole_is_not_there(store, monkeypatch):
    store.write("a/b", b"old")

    def half(self, path, content):
        with self._fs.open_output_stream(path) as stream:
            stream.write(content[: len(content) // 2])
        raise OSError("the line is cut")

    monkeypatch.setattr(Store, "_put", half)
    with pytest.raises(OSError, match="the line is cut"):
        store.write("a/b", b"new content")
    assert store.read("a/b") == b"old"
    assert [*store.files()] == ["a/b"]


def test_an_owner_holds_it_and_one_of_another_machine_is_believed_for_a_while(store, monkeypatch):
    assert living_owner(store) is None
    with owned(store):
        assert f"process {os.getpid()} on " in living_owner(store)
    assert living_owner(store) is None
    store.write(".owner", b'{"host": "elsewhere", "pid": 1, "started": "2"}')
    has_times = store.state(".owner").mtime > 0
    assert (living_owner(store) is not None) == has_times
    monkeypatch.setattr(Store, "age", lambda self, name: 1000.0)
    assert living_owner(store) is None
    assert [*store.files()] == [".owner"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("no-url", "must be a URL like s3://BUCKET/FOLDER"),
        ("foo://a/b", "the scheme foo:// of a storage is unknown; s3://, gs://, file://"),
        ("s3://", "must name a bucket, s3:// does not"),
        ("file:///", "must name a folder"),
        ("s3://bucket/x?speed=1", "says speed, which is unknown; known are endpoint_override, region, scheme"),
        ("s3://KEY:very/secret@bucket/x", "signs that URLs do not allow; write them as %2F"),
        ("s3://KEY:very%2Fsecret@bucket/x?speed=1", "says speed"),
    ],
)
def test_a_url_that_cannot_be_is_said_in_one_line_without_its_secrets(url, message, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with pytest.raises(InputError, match=message) as raised:
        Store(url)
    assert "\n" not in str(raised.value)
    assert "secret@" not in str(raised.value)


def test_nobody_answers_at_the_endpoint(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    begin = time.monotonic()
    found = Store("s3://KEY:secret@bucket/x")
    with pytest.raises(InputError, match=r"s3://KEY:\*\*\*@bucket/x is not \(it cannot be reached\)"):
        found.check()
    assert time.monotonic() - begin < 10


def test_one_that_says_nothing_does_not_hold_up_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "PATIENCE_SECONDS", 0.2)
    found = Store(f"file://{tmp_path}/there")
    monkeypatch.setattr(Store, "write", lambda self, name, content: time.sleep(2))
    with pytest.raises(InputError, match=r"does not answer within 0\.2 s"):
        found.check()


def test_a_place_without_rights(tmp_path, monkeypatch):
    found = Store(f"file://{tmp_path}/there")

    def refuse(path, content):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(found, "_put", refuse)
    with pytest.raises(InputError, match=r"is not \(it gives no rights\); ask for them, or give another URL"):
        found.check()


def test_errors_of_any_kind_are_those_of_files(tmp_path, monkeypatch):
    found = Store(f"file://{tmp_path}/there")

    def fail(path):
        raise KeyError("a kind that some package has")

    monkeypatch.setattr(found, "_fs", SimpleNamespace(open_input_stream=fail))
    with pytest.raises(OSError, match="KeyError: 'a kind that some package has'"):
        found.read("x")
    assert reason_of(OSError("AWS Error NO_SUCH_BUCKET during PutObject")) == ("there is no such bucket", "make it")
    assert len(reason_of(OSError("x" * 1000))[0]) < 200


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:secret@bucket/x", "s3://KEY:***@bucket/x"),
        ("s3://KEY:sec/ret@bucket/x", "s3://KEY:***@bucket/x"),
        ("abfs://c@a/x?sas_token=abc&y=1", "abfs://c@a/x?sas_token=***&y=1"),
        ("s3://b/x?endpoint_override=http://h:1", "s3://b/x?endpoint_override=http://h:1"),
        ("--storage s3://K:a@b/x --mlflow http://u:p@h", "--storage s3://K:***@b/x --mlflow http://u:***@h"),
    ],
)
def test_secrets_are_left_out(text, shown):
    assert without_password(text) == shown


def test_a_url_means_the_same_where_the_environment_is_another(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general:9000")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://own:9000/")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    found = resolved("s3://KEY:secret@bucket/a")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name)
    assert found == "s3://KEY:secret@bucket/a?region=eu-west-1&endpoint_override=own%3A9000&scheme=http"
    assert resolved(found) == found
    assert isinstance(Store(found)._fs, fs.S3FileSystem)
    assert Store(found)._fs.region == "eu-west-1"
    assert resolved("s3://b/x?endpoint_override=own").endswith("endpoint_override=own&scheme=https")


@pytest.mark.parametrize(("place", "found"), [("s3://b/x", True), ("file:///x", True), ("a/b", False), ("C:/x", False)])
def test_what_is_a_url(place, found):
    assert is_url(place) == found
