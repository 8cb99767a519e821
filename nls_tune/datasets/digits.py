"""The handwritten digits that ship with scikit-learn: 1,797 grey images of 8 x 8."""

from __future__ import annotations

import numpy as np

from nls_tune.datasets.registry import DatasetInfo
from nls_tune.datasets.source import Source, make_source
from nls_tune.datasets.splits import stratified_order

_TEST_SEED = 1998


def load_digits(info: DatasetInfo) -> Source:
    """Load the digits, a fifth of them held out as the test set.

    Args:
        info: The dataset, with its sizes.

    Returns:
        The source: (N, 1, 8, 8) uint8 inputs, scaled from 0..16 to 0..255. The test set is stratified and
        always the same; both parts keep the order of scikit-learn.
    """
    from sklearn import datasets  # takes a second to import, and only this dataset needs it

    bunch = datasets.load_digits()
    images = (bunch.images.astype(np.int64) * 255 + 8) // 16
    inputs, labels = images.astype(np.uint8)[:, None], bunch.target.astype(np.int64)
    order = stratified_order(labels, np.random.Generator(np.random.PCG64(_TEST_SEED)))
    test, labelled = np.sort(order[: info.num_test]), np.sort(order[info.num_test :])
    return make_source(info, inputs[labelled], labels[labelled], inputs[test], labels[test])
