"""How a command ends: one line for an error, and the exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from nls_tune.errors import InputError, unknown_name


def check_format(name: str, formats: Sequence[str] = ("table", "json", "csv", "markdown")) -> None:
    """Refuse a format that the command does not have."""
    if name not in formats:
        raise unknown_name("format", name, formats)


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run a Typer program, by default with the arguments of the process, and return its exit code.

    0 done, 1 the run failed, 2 bad input (said in one line on stderr), 130 interrupted, 141 the reader of the
    output has left (128 + SIGPIPE, which a shell reports of other programs then).
    """
    _mend_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a dash that a locale lacks must not end the program
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _end_quietly()
    except SystemExit as end:
        # Rich and click end the program themselves when the reader has left, with 1 as if it had failed.
        cause = end.__context__
        if isinstance(cause, OSError) and cause.errno == errno.EPIPE:
            return _end_quietly()
        raise
    except InputError as error:
        for message in (str(error), *getattr(error, "__notes__", ())):
            _say(message, 2)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", 130)
    except OSError as error:
        return _say(_system_error(error), 1)
    except RuntimeError as error:
        return _say(str(error), 1)
    except Exception as error:
        # Typer brings its own copy of click or uses an installed one: usage errors are known by what they carry.
        if hasattr(error, "format_message"):
            if type(error).__name__ == "NoArgsIsHelpError":
                print(error.format_message())
                return 0
            context = getattr(error, "ctx", None)
            message = error.format_message().rstrip(".")
            if context and not message.startswith("Invalid value"):  # which needs no hint
                message += f"{' ' if message.endswith('?') else '; '}{context.command_path} --help says what there is"
            return _say(message, 2)
        raise
    return code if isinstance(code, int) else 0


def _mend_streams() -> None:
    """Give a process that was started without stdout or stderr an empty one, and no screen a width of 0.

    Else the next file that is opened would have the number of the missing stream, and get what others print.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    if not os.environ.get("COLUMNS", "").strip("0 "):
        os.environ.pop("COLUMNS", None)  # 0 means unknown, and Rich prints nothing on a screen without columns


def exit_with(app: typer.Typer) -> NoReturn:
    """Run a Typer program as the whole process; it ends with the program's exit code."""
    code = run_app(app)
    if code == 130:
        # Everything is said and saved. Another Ctrl-C while Python and Ray clean up would only make noise.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _end_quietly() -> int:
    """Keep Python from raising again for output whose reader has left, as ``head`` does."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _system_error(error: OSError) -> str:
    """Return an error of the system without its number, and the way out where that is known."""
    if error.strerror is None:
        return str(error)
    place = "" if error.filename is None else f": {error.filename}"
    # A search that ran out of space goes on like one that was interrupted.
    full = "; make room and give the same command again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{error.strerror}{place}{full}"


def _say(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
