"""Which Ray a search joins; Ray itself is played here."""

from typing import Any

import pytest
import ray

from nls_tune import InputError
from nls_tune.tune.cluster import local_resources
from nls_tune.tune.starting import ray_session

pytestmark = pytest.mark.slow


@pytest.fixture
def played(monkeypatch) -> dict[str, Any]:
    """A Ray that notes how it is started and has what it was started with."""
    notes: dict[str, Any] = {"running": False, "resources": {}}

    def init(**arguments):
        notes["running"] = True
        if arguments["address"] == "local":
            own = {"CPU": arguments["num_cpus"], "GPU": arguments["num_gpus"]}
            notes["resources"] = {**own, **arguments["resources"]}

    monkeypatch.setattr(ray, "is_initialized", lambda: notes["running"])
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: notes.update(running=False))
    monkeypatch.setattr(ray, "cluster_resources", lambda: notes["resources"])
    return notes


def test_a_search_does_not_join_the_ray_of_another_one(played):
    with ray_session(None) as found:
        assert {name: found[name] for name in ("CPU", "GPU")} == local_resources()
    with (
        pytest.raises(InputError, match=r"'auto' is another search's own Ray.*leave out --address"),
        ray_session("auto"),
    ):
        pytest.fail("joined")
    assert not played["running"]


def test_it_joins_a_cluster_and_a_session_that_is_open(played):
    played["resources"] = {"CPU": 8.0, "node:10.0.0.1": 1.0}
    with ray_session("auto") as found:
        assert found["CPU"] == 8
    played["running"] = True
    with ray_session(None) as found:
        assert found["CPU"] == 8
    assert played["running"]  # the caller's is left open
