import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.errors import InputError, NlsTuneError, unknown_name


def test_an_input_error_is_a_value_error_of_the_package():
    assert issubclass(InputError, NlsTuneError)
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("name", "nearest"), [("twonrm", "twonorm"), ("TWONORM", "twonorm"), ("twonorms", "twonorm"), ("cifar1", "CIFAR10")]
)
def test_the_nearest_name_is_suggested_whatever_its_case(name, nearest):
    assert f"(did you mean '{nearest}'?)" in str(unknown_name("dataset", name, ["CIFAR10", "twonorm"]))


def test_nothing_is_suggested_where_nothing_is_near():
    message = str(unknown_name("dataset", "zzz", ["cifar10", "twonorm"]))
    assert message == "unknown dataset 'zzz'; valid: cifar10, twonorm"


def test_valid_names_keep_their_order_and_may_come_from_an_iterator():
    assert str(unknown_name("arm", "x", iter(["ce", "positive", "negative"]))).endswith("valid: ce, positive, negative")


@given(st.text("aé雑\n\r\x0b\x1c\x85\u2028'"))
def test_every_name_gives_one_line(name):
    assert len(str(unknown_name("model", name, ["mlp", "cnn9"])).splitlines()) == 1
