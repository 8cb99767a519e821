"""The storage of a session: taken over, held and mirrored; nothing is trained."""

from dataclasses import replace

import pytest
from commands import wait_until

from nls_tune.errors import InputError
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.owner import owned
from nls_tune.runs.storage import mirror
from nls_tune.runs.storage.store import Store
from nls_tune.session.continuing import settings_of_run, stored_settings
from nls_tune.session.storing import SessionStorage


class Place:
    """A run directory with a storage, and what was said of it."""

    def __init__(self, plan, tmp_path, out="run", **settings) -> None:
        self.plan, self.said = plan, list[str]()
        self.url = f"file://{tmp_path}/there"
        self.run = RunDirectory(tmp_path / out)
        wanted = check_search_settings(storage=self.url, **settings)
        self.storage = SessionStorage(wanted, self.run, self.said.append)

    def visit(self) -> str:
        with self.storage.begun(self.plan) as content:
            return str(content.run_id)


@pytest.fixture
def place(tiny_plan, tmp_path) -> Place:
    return Place(tiny_plan, tmp_path)


def test_a_new_run_is_stored_and_goes_on_in_another_folder(place, tiny_plan, tmp_path):
    run_id = place.visit()
    assert place.said == [f"Stored: {place.url}"]
    assert "run.json" in Store(place.url).files()
    other = Place(tiny_plan, tmp_path, "other")
    assert not other.storage.is_finished()
    assert other.visit() == run_id


def test_it_is_known_to_have_finished_before_it_is_here(place, tiny_plan, tmp_path):
    with place.storage.begun(tiny_plan) as content:
        content.status = "finished"
        place.run.write_json(content)
    assert Place(tiny_plan, tmp_path, "other").storage.is_finished()


def test_other_settings_are_refused_before_anything_is_downloaded(place, tiny_plan, tmp_path):
    place.visit()
    other = Place(replace(tiny_plan, settings=replace(tiny_plan.settings, seed=1)), tmp_path, "other")
    with pytest.raises(
        InputError, match=r"there is a run with other settings: settings\.seed: 0 -> 1; give another --"
    ):
        other.visit()
    assert not other.run.run_json.exists()


def test_a_second_search_is_refused(place, tiny_plan, tmp_path):
    with (
        owned(Store(place.url)),
        pytest.raises(InputError, match=r"another search \(process .*\) is writing to file://"),
    ):
        place.visit()
    place.visit()
    assert ".owner" not in Store(place.url).files()


def test_what_could_not_be_uploaded_is_named_with_the_command_that_tries_again(place, monkeypatch):
    monkeypatch.setattr(mirror, "_LAST_TRIES", 0.1)
    monkeypatch.setattr(mirror, "_LOOK", 0.02)

    def fail(self, path, content):
        raise OSError("the line is cut")

    with place.storage.begun(place.plan):
        wait_until(lambda: not place.storage.mirror._missing(), "all is uploaded")
        monkeypatch.setattr(Store, "_put", fail)
        place.run.write_json(place.run.read_json())
    assert "lacks a part of this run (the line is cut)" in place.said[0]
    assert place.said[1] == (
        f"1 file could not be uploaded to {place.url} (the line is cut): run.json. "
        f"To try again: nls-tune resume {place.run.path}"
    )


def test_a_session_without_storage_has_its_folder_alone(tiny_plan, tmp_path):
    run = RunDirectory(tmp_path / "run")
    storage = SessionStorage(check_search_settings(), run, print)
    with storage.begun(tiny_plan):
        assert (storage.store, storage.mirror) == (None, None)
        assert run.is_held()
    assert not run.is_held()


@pytest.mark.parametrize("url", ["s3://KEY:secret@bucket/x", "abfs://container@account/x?sas_token=secret"])
def test_secrets_are_not_stored_and_asked_for_again(tiny_plan, tmp_path, url):
    stored = stored_settings(check_search_settings(storage=url))
    assert "secret" not in str(stored)
    run = RunDirectory(tmp_path / "run")
    with SessionStorage(check_search_settings(), run, print).begun(tiny_plan) as content:
        session = {"started_at": "2026-01-01T00:00:00Z", **stored}
        run.write_json(type(content).model_validate({**content.model_dump(), "sessions": [session]}))
    with pytest.raises(InputError, match=r"keeps no passwords: give --storage again, with the one of \w+://.*\*\*\*"):
        settings_of_run(run, {})
    assert settings_of_run(run, {"storage": "file:///x"}).storage == "file:///x"
