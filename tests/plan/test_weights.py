import pytest

from nls_tune.errors import InputError
from nls_tune.noise import parse_noise_levels
from nls_tune.plan.flag import parse_duration
from nls_tune.plan.weights import parse_level_weights

LEVELS = parse_noise_levels("symmetric:0.4,human:worst,clean")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400), ("45", 45), (" .5 M ", 30), ("2.s", 2)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "0", "0m", "-5", "-5m", "1d", "1h30m", "nan", "inf", "1e3", "1,5h", "٣m"])
def test_what_is_no_duration(text):
    with pytest.raises(InputError, match=r"above 0 and be written like 90s, 30m, 1\.5h") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "weights"),
    [
        ((), {}),
        (("symmetric:0.40=2",), {"symmetric:0.4": 2}),
        (("clean=0.5, Human:worse=3",), {"human:worst": 3, "clean": 0.5}),
        (("clean=1", "symmetric:0.4=1e2"), {"symmetric:0.4": 100, "clean": 1}),
    ],
)
def test_weights_of_levels_in_any_spelling(texts, weights):
    found = parse_level_weights(texts, LEVELS)
    assert found == weights
    assert list(found) == list(weights)  # in the order of the levels


def test_the_file_of_a_matrix_may_have_an_equals_sign():
    assert parse_level_weights(("matrix:a=b.csv=2",), parse_noise_levels("matrix:a=b.csv")) == {"matrix:a=b.csv": 2}
