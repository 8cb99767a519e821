"""The networks of a search, checked before anything starts: each that is not of this package is built once."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from nls_tune.errors import InputError
from nls_tune.spaces.networks import NETWORKS, InputShape, check_model
from nls_tune.spaces.space import SearchSpace, setting_values
from nls_tune.training.model_check import ModelAnswer, ModelQuestion

#: Importing torch from a cold disk takes a minute, and so may downloading weights.
_PATIENCE_SECONDS = 300.0


def check_models(space: SearchSpace, num_classes: int, input_shape: InputShape) -> SearchSpace:
    """Return the space with fingerprints behind its networks and weights, after trying them on two samples.

    Raises:
        InputError: For a network that does not exist, cannot be built, or does not give logits for these inputs.
    """
    models, weights = setting_values(space, "model"), setting_values(space, "weights")
    for model in models:
        check_model(model, input_shape)
    if weights == [None] and all(model in NETWORKS for model in models):
        return space
    if len(models) > 1 and weights != [None]:
        raise InputError(f"--weights are those of one network, the space has {len(models)}; give one with --model")
    question = ModelQuestion(
        models=models,
        weights=weights,
        freeze=True in setting_values(space, "freeze"),
        num_classes=num_classes,
        input_shape=input_shape,
    )
    answer = _ask(question, models[0])
    if "error" in answer:
        raise InputError(answer["error"])
    return space.with_values("model", answer["models"]).with_values("weights", answer["weights"])


def import_paths() -> tuple[str, ...]:
    """Return where this process finds modules, and last the current folder: there is a user's own network."""
    return (*(path for path in sys.path if path), os.getcwd())  # noqa: PTH109 - as a text


def _ask(question: ModelQuestion, model: str) -> ModelAnswer:
    command = [sys.executable, "-P", "-m", "nls_tune.training.model_check"]
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(import_paths())},
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"model {model!r} is not built and tried within {_PATIENCE_SECONDS:g} s; find out what it waits for"
        ) from None
    try:
        answer: ModelAnswer = json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        raise InputError(f"model {model!r} cannot be built: its process ended ({reason[:200]})") from None
    return answer
