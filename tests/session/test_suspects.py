"""Labels that are probably wrong: what is said where they cannot be judged."""

import dataclasses

import pytest
from answers import write_answerable_run

from nls_tune import InputError
from nls_tune.session.answer import load_answer
from nls_tune.session.suspects import find_suspects


def test_a_network_that_diverges_is_said_with_a_way_out_that_this_command_has(tmp_path):
    answer = load_answer(write_answerable_run(tmp_path / "run"))
    settings = answer.default_ce.model_copy(update={"lr": 1e30, "loss": "gce", "gce_q": 0.5})
    broken = dataclasses.replace(answer, recommended=answer.recommended._replace(settings=settings))
    with pytest.raises(InputError, match=r"gce, gce_q 0.5 with mlp diverged") as raised:
        find_suspects(broken, folds=2, progress=False)
    assert str(raised.value).endswith("; give other --folds, or search again with a lower lr")
