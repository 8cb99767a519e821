"""The training of what a run recommends: what is said before it."""

import dataclasses

import pytest
from answers import LEVEL, write_answerable_run

from nls_tune.session.answer import load_answer
from nls_tune.session.final_model import train_answer


def test_another_loss_is_named_with_its_settings(tmp_path, monkeypatch):
    answer = load_answer(write_answerable_run(tmp_path / "run"))
    settings = answer.default_ce.model_copy(update={"loss": "gce", "gce_q": 0.5})
    other = dataclasses.replace(answer, recommended=answer.recommended._replace(settings=settings, stop_at=3))

    def fail(*given, **options):
        raise RuntimeError("far enough")

    monkeypatch.setattr("nls_tune.training.final.train_to_the_end", fail)
    said = []
    with pytest.raises(RuntimeError, match="far enough"):
        train_answer(other, tmp_path / "model", say=said.append, progress=False)
    assert f"twonorm, {LEVEL}: gce, gce_q 0.5, warm-up 1, lr 0.003, 3 epochs" in said[0]
