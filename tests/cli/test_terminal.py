"""What is printed on terminals of several widths."""

import re
import sys

import pytest
from commands import REPOSITORY, run_in_terminal

PROGRAM = "from nls_tune.cli.main import main; main()"
RUN = REPOSITORY / "benchmarks" / "evidence" / "twonorm_run"


def shown(folder, columns: int) -> str:
    """Return what ``nls-tune analyze`` shows on a terminal, without colours."""
    code, text = run_in_terminal((sys.executable, "-c", PROGRAM, "analyze", str(RUN)), folder, {}, columns=columns)
    assert code == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")


@pytest.mark.slow
def test_no_word_is_broken_and_only_commands_are_wider_than_the_terminal(tmp_path):
    words = set(shown(tmp_path, 200).split())
    for columns in (60, 80, 120):
        text = shown(tmp_path, columns)
        assert set(text.split()) <= words
        assert [line for line in text.splitlines() if len(line) > columns and "nls-tune analyze" not in line] == []
