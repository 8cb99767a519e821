"""Made-up runs whose data are real: what they recommend can be trained."""

from pathlib import Path
from typing import Any

from fake_runs import read_raw, write_fake_run, write_raw

from nls_tune import load_dataset
from nls_tune.datasets import load_own, make_noisy
from nls_tune.files import json_text
from nls_tune.noise import parse_noise_level
from nls_tune.plan.settings import check_search_settings

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


def write_own_run(path: Path, **settings: Any) -> Path:
    """Write a run of a user's own data, which the settings name, with the labels as given."""
    source = load_own(check_search_settings(**settings).data)
    options = {"levels": ("given",), "trials": 12, "epochs": 4, "confirm_seeds": 3}
    write_fake_run(path, dataset=source.info.name, num_classes=source.info.num_classes, **options)
    raw = read_raw(path)
    raw["identity"]["fingerprints"]["given"] = make_noisy(source, parse_noise_level("given")).fingerprint
    raw["data"] = {"class_names": list(source.own.class_names), "val_clean": source.own.val_clean}
    raw["sessions"][0] |= {"settings": {**settings, "noise": ["given"]}, "folder": str(Path.cwd())}
    write_raw(path, **raw)
    (path / "preprocessing.json").write_text(json_text(source.own.preprocessing), encoding="utf-8")
    return path
