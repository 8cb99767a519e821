"""Real ``ray start`` on machines with addresses of their own, one cut off and one joining. ``pytest -m soak``."""

import time

import pytest
from commands import SEARCH, started, wait_until
from namespaces import PORT, can_make_namespaces, machines
from ray_programs import ENVIRONMENT
from test_nodes import ARGUMENTS, assert_whole

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not can_make_namespaces(), reason="needs the right to make network namespaces"),
]


def test_a_machine_that_is_cut_off_costs_no_trial_and_one_that_joins_takes_its_place(tmp_path):
    with machines(tmp_path) as lan:
        for number in (1, 2, 3, 4):
            lan.add(number)
        lan.start_ray(1, head=True, cpus=0)
        time.sleep(5)
        for number in (2, 3):
            lan.start_ray(number)
        address = f"10.77.0.1:{PORT}"
        nodes = (*SEARCH[:1], "-c", f"import ray; ray.init(address={address!r}); assert len(ray.nodes()) == 3")
        wait_until(lambda: _succeeds(lan.on(1, *nodes), tmp_path), "three nodes are there", 200)
        command = lan.on(1, *SEARCH, *ARGUMENTS, "--address", address)
        with started(*command, folder=tmp_path, env=ENVIRONMENT) as program:
            epochs = tmp_path / "run" / "epochs"
            wait_until(lambda: len(list(epochs.glob("[!e]*.parquet"))) >= 2 or not program.running, "two run", 200)
            lan.cut_off(3)
            lan.start_ray(4)
            done = program.wait(400)
        assert (done.code, done.err) == (0, "")
        assert " lost its process: " in done.out
        assert_whole(tmp_path / "run", 4)


def _succeeds(command, folder) -> bool:
    with started(*command, folder=folder, env=ENVIRONMENT) as program:
        return program.wait(100).code == 0
