"""Datasets with noisy labels: what there is, loading, noise and splits.

``load_dataset("twonorm", "symmetric:0.4")`` gives everything that a training needs. A search over several
levels loads the clean data once (`load_source`) and makes each level from it (`make_noisy`).
"""

from nls_tune.datasets.downloads import DownloadError
from nls_tune.datasets.loading import load_dataset, load_source
from nls_tune.datasets.noisy import NoisyDataset, make_noisy
from nls_tune.datasets.progress import Progress
from nls_tune.datasets.registry import DATASETS, DatasetInfo, check_level, dataset_info
from nls_tune.datasets.source import Source

__all__ = [
    "DATASETS",
    "DatasetInfo",
    "DownloadError",
    "NoisyDataset",
    "Progress",
    "Source",
    "check_level",
    "dataset_info",
    "load_dataset",
    "load_source",
    "make_noisy",
]
