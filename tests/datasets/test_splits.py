import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from nls_tune.datasets.splits import stratified_order

labels_of_some_size = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(np.array)


def order_of(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    return stratified_order(labels, np.random.default_rng(seed))


@given(labels_of_some_size, st.integers(0, 3))
@example(np.repeat(np.arange(60), np.arange(1, 61) ** 2 // 10 + 1), 0)  # many classes of very different sizes
def test_every_prefix_and_suffix_is_stratified(labels, seed):
    order = order_of(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    values = np.unique(labels)
    hits = labels[order][:, None] == values
    share = hits.mean(axis=0)
    places = np.arange(1, len(labels) + 1)[:, None]
    assert np.abs(hits.cumsum(axis=0) - places * share).max() < 1
    assert np.abs(hits[::-1].cumsum(axis=0) - places * share).max() < 1


def test_members_of_a_class_come_in_random_order():
    first, second = (order_of(np.zeros(1000, dtype=int), seed) for seed in (0, 1))
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.15
    assert not np.array_equal(first, second)
    assert len(order_of(np.empty(0, dtype=int))) == 0
