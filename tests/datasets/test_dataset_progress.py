import sys

import pytest

from nls_tune.datasets.progress import show_progress


@pytest.mark.parametrize(("unit", "total"), [("items", 100), ("bytes", None)])
def test_a_terminal_gets_a_bar(capsys, monkeypatch, unit, total):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with show_progress(True, "decoding images", total, unit=unit) as update:
        update(100)
    out, err = capsys.readouterr()
    assert out == ""
    assert "decoding images" in err


@pytest.mark.parametrize(("progress", "terminal"), [(True, False), (False, True)])
def test_a_file_or_an_unwilling_caller_gets_nothing(capsys, monkeypatch, progress, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with show_progress(progress, "decoding images", 100) as update:
        update(100)
    assert capsys.readouterr() == ("", "")


def test_a_function_is_told_every_step():
    steps = []
    with show_progress(lambda *step: steps.append(step), "decoding images", 100) as update:
        update(50)
        update(100)
    assert steps == [("decoding images", 50, 100), ("decoding images", 100, 100)]
