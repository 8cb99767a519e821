"""Made-up runs whose data are real: what they recommend can be trained."""

from pathlib import Path
from typing import Any

from fake_runs import read_raw, write_fake_run, write_raw

from nls_tune import load_dataset

LEVEL = "symmetric:0.2"


def write_answerable_run(path: Path, dataset: str = "twonorm", *, train_size: int = 300, **options: Any) -> Path:
    """Write a run of four epochs on a small part of a dataset, at one noise level, whose data can be loaded."""
    num_classes = {"twonorm": 2, "digits": 10}[dataset]
    options = {"levels": (LEVEL,), "trials": 12, "epochs": 4, "confirm_seeds": 3, **options}
    write_fake_run(path, dataset=dataset, num_classes=num_classes, **options)
    raw = read_raw(path)
    for level in options["levels"]:
        data = load_dataset(dataset, level, train_size=train_size)
        raw["identity"]["fingerprints"][level] = data.fingerprint
    raw["identity"]["space"]["budget"]["train_size"] = train_size
    write_raw(path, **raw)
    return path
