"""``model.json``: what a trained network is, beside its weights, so that anybody can use it without the run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from nls_tune.errors import InputError
from nls_tune.files import json_text, seal_holds, sealed_json
from nls_tune.metrics import PLAIN
from nls_tune.spaces.networks import check_model
from nls_tune.spaces.settings import describe_validation_error

#: The files of a saved model, in the order in which they are written: with the last one it is complete.
WEIGHTS, CARD, FACTS = "model.safetensors", "README.md", "model.json"
FORMAT_VERSION = 1


class SavedModel(BaseModel):
    """The content of ``model.json``.

    Attributes:
        format_version: The version of this format.
        model: Name of the network.
        num_classes: Number of classes.
        input_shape: Shape of one sample: (C, H, W) of uint8 images, (D,) of float32 features.
        class_names: Names of the classes in the order of their numbers; null where they have none.
        mean: What is subtracted from each channel (of values from 0 to 1) or feature.
        std: What each channel or feature is divided by then.
        preprocessing: What a user's own data went through before that, as ``preprocessing.json`` of the run says; null
            for built-in datasets.
        precision: The precision of the forward pass.
        settings: All settings of the training.
        epochs: The epoch after which the training was stopped.
        readout: The weights that were saved: ``plain``, as they were then, or ``average:SPAN``.
        trained_on: ``all`` labels of the run, validation samples included, or those of its ``training`` split.
        num_samples: Number of samples that it was trained on.
        dataset: Name of the dataset.
        noise_level: Noise level of the labels.
        noise_rate: Share of wrong labels; null where unknown.
        run_id: The run that recommended the settings.
        trial_id: Hash of data and settings.
        finding: The verdict in short: ``better``, ``no_proven_difference``, ``worse`` or ``not_confirmed``.
        verdict: The verdict in words.
        versions: Versions of the packages that trained it.
        device: The device that trained it.
        num_test: Number of test samples; 0 without a test set.
        test_labels: Whether the test labels are ``clean``, or as ``given``, some of them perhaps wrong.
        test_accuracy: Accuracy of these weights on the test labels; null without a test set.
        test_balanced_accuracy: Their mean recall over the classes there; null in models of early versions as well.
        test_macro_f1: Their mean F1 over the classes, likewise.
        weights_sha256: SHA-256 of ``model.safetensors``.
    """

    # What a later version writes besides is kept.
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    format_version: int = FORMAT_VERSION
    model: str
    num_classes: int
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...] | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing: dict[str, object] | None = None
    precision: Literal["float32", "bfloat16"]
    settings: dict[str, Any]
    epochs: int
    readout: str = PLAIN
    trained_on: Literal["all", "training"]
    num_samples: int
    dataset: str
    noise_level: str
    noise_rate: float | None = None
    run_id: str | None = None
    trial_id: str
    finding: str
    verdict: str
    versions: dict[str, str | None] = {}
    device: str = ""
    num_test: int = 0
    test_labels: Literal["clean", "given"] = "clean"
    test_accuracy: float | None = None
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None
    weights_sha256: str

    @model_validator(mode="after")
    def _check(self) -> SavedModel:
        check_model(self.model, self.input_shape)
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names must be {self.num_classes}, got {len(self.class_names)}")
        if not len(self.mean) == len(self.std) == self.input_shape[0]:
            raise ValueError(f"mean and std must have {self.input_shape[0]} values, as input_shape says")
        if not all(value > 0 for value in self.std):
            raise ValueError("std must be positive")
        return self

    def text(self) -> str:
        """Return the text of the file."""
        return sealed_json(json_text(self.model_dump(mode="json")))

    def name_of(self, label: int) -> str:
        """Return the name of a class, by default its number."""
        return str(label) if self.class_names is None else self.class_names[label]


def model_folder(path: str | Path) -> Path:
    """Return the folder of a saved model, which may be named by any of its files."""
    folder = Path(path).expanduser()
    return folder.parent if folder.name in (WEIGHTS, CARD, FACTS) else folder


def read_saved_model(path: str | Path) -> SavedModel:
    """Read ``model.json`` of a saved model; raise InputError if it is missing, damaged or of a newer format."""
    file = model_folder(path) / FACTS
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{file.parent} is not a saved model: it has no {FACTS}; nls-tune train RUN makes one"
        ) from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); restore it or train the model again") from None
    if seal_holds(content) is False:
        raise InputError(f"{file} is not what was written (its checksum differs); restore it or train the model again")
    try:
        found = SavedModel.model_validate_json(content)
    except ValidationError as error:
        reason = describe_validation_error(error)
        raise InputError(f"{file} cannot be read ({reason}); restore it or train the model again") from None
    if found.format_version > FORMAT_VERSION:
        raise InputError(
            f"{file} has format version {found.format_version}, this nls_tune reads up to {FORMAT_VERSION}; "
            "update nls_tune"
        )
    (found.model_extra or {}).pop("seal", None)
    return found


def read_weights(path: str | Path, saved: SavedModel) -> bytes:
    """Return the bytes of ``model.safetensors``; raise InputError if they are not those that ``model.json`` names."""
    file = model_folder(path) / WEIGHTS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); restore it or train the model again") from None
    if hashlib.sha256(content).hexdigest() != saved.weights_sha256:
        raise InputError(
            f"{file} is damaged or belongs to another {FACTS}: its SHA-256 differs; restore it or train the model again"
        )
    return content
