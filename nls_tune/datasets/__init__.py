"""Datasets with noisy labels: what there is, loading, noise and splits.

``load_dataset("twonorm", "symmetric:0.4")`` gives everything that a training needs. A search over several
levels loads the clean data once (`load_source`) and makes each level from it (`make_noisy`).
"""

from nls_tune.datasets.data import Data as Data
from nls_tune.datasets.downloads import DownloadError as DownloadError
from nls_tune.datasets.loading import load_dataset as load_dataset
from nls_tune.datasets.loading import load_source as load_source
from nls_tune.datasets.noisy import NoisyDataset as NoisyDataset
from nls_tune.datasets.noisy import make_noisy as make_noisy
from nls_tune.datasets.own import load_own as load_own
from nls_tune.datasets.progress import Progress as Progress
from nls_tune.datasets.registry import DATASETS as DATASETS
from nls_tune.datasets.registry import DatasetInfo as DatasetInfo
from nls_tune.datasets.registry import check_level as check_level
from nls_tune.datasets.registry import dataset_info as dataset_info
from nls_tune.datasets.source import Source as Source
