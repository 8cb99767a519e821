"""The beginning of a run."""

from nls_tune.session.beginning import default_out


def test_searches_that_begin_in_the_same_second_have_folders_of_their_own():
    assert len({default_out("digits") for _ in range(5)}) > 1
    assert default_out("digits").match("runs/digits-*T*Z-*")
