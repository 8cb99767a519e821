"""What is printed on terminals of several widths."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from commands import REPOSITORY, environment

PROGRAM = "from nls_tune.cli.main import main; main()"
RUN = REPOSITORY / "benchmarks" / "evidence" / "twonorm_run"


def shown(columns: int) -> str:
    """Run ``nls-tune analyze`` on a terminal of its own; return what was shown, without colours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = environment({"TERM": "xterm-256color", "COLUMNS": None, "LINES": None})
    command = (sys.executable, "-c", PROGRAM, "analyze", str(RUN))
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env) as process:
        os.close(slave)
        content = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            content += part
    os.close(master)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", content.decode()).replace("\r\n", "\n")


@pytest.mark.slow
def test_no_word_is_broken_and_only_commands_are_wider_than_the_terminal():
    words = set(shown(200).split())
    for columns in (60, 80, 120):
        text = shown(columns)
        assert set(text.split()) <= words
        assert [line for line in text.splitlines() if len(line) > columns and "nls-tune analyze" not in line] == []
