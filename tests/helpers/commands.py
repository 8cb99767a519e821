"""Runs the program as users do: in a process of its own, in a folder of its own."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SEARCH = (sys.executable, "-m", "nls_tune.search")
#: Seconds until something that a test waits for counts as not coming.
PATIENCE = 60.0


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    code: int
    out: str
    err: str

    def has_failed_in_one_line(self) -> bool:
        """Whether it ended as every bad input must: exit code 2, one line on stderr, nothing on stdout."""
        return self.code == 2 and not self.out and is_one_line_error(self.err)


def is_one_line_error(text: str) -> bool:
    return re.fullmatch(r"error: [^\n╭╰│]+\n", text) is not None and "Traceback" not in text


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """This process's environment, with the package importable from any folder; None removes a variable."""
    paths = [str(REPOSITORY), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    for name, value in (changes or {}).items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = value
    return found


class ModulesAtTheEnd:
    """Notes which modules a search that runs as a command has loaded when it ends."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._file = folder / "modules"
        # Every Python runs this when it starts, also those of Ray's workers.
        (folder / "sitecustomize.py").write_text(
            "import atexit, pathlib, sys\n"
            "if 'nls_tune.search' in sys.orig_argv:\n"
            f"    atexit.register(lambda: pathlib.Path({str(self._file)!r}).write_text(' '.join(sys.modules)))\n"
        )
        self.env = {"PYTHONPATH": f"{folder}{os.pathsep}{environment()['PYTHONPATH']}"}

    @property
    def names(self) -> set[str]:
        return set(self._file.read_text().split())


class Program:
    """A program that runs, in a process group of its own, as a shell starts it."""

    def __init__(self, command: tuple[str, ...], folder: Path, env: Mapping[str, str | None] | None = None) -> None:
        self._out, self._err = folder / f"{id(self)}.out", folder / f"{id(self)}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment(env),
                start_new_session=True,
                # Tests that a script put into the background ignore Ctrl-C, and so would what they start.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float = PATIENCE) -> Done:
        code = self.process.wait(seconds)
        done = Done(code, self.out, self._err.read_text(encoding="utf-8"))
        self._out.unlink()
        self._err.unlink()
        return done

    def press_ctrl_c(self) -> None:
        """Interrupt the whole process group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """End the program without a chance to clean up; what it started must follow by itself."""
        children = {pid: command_of(pid) for pid in descendants(self.process.pid)}
        self.process.kill()
        self.process.wait()
        # Ray's agents look for their parent once a minute only, and do no harm.
        agents = {pid for pid, command in children.items() if command.endswith("Agent")}
        wait_until(lambda: not any(is_alive(pid) for pid in {*children} - agents), "what it started is gone")
        for pid in agents:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the program and all that it started, however it is."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def started(*command: str, folder: Path, env: Mapping[str, str | None] | None = None) -> Iterator[Program]:
    """Start a program; whatever is left of it at the end is killed."""
    program = Program(command, folder, env)
    try:
        yield program
    finally:
        if program.running:
            program.stop()


def run(*command: str, folder: Path, env: Mapping[str, str | None] | None = None, seconds: float = PATIENCE) -> Done:
    """Run a program to its end."""
    with started(*command, folder=folder, env=env) as program:
        return program.wait(seconds)


def run_search(
    *arguments: str, folder: Path, env: Mapping[str, str | None] | None = None, seconds: float = PATIENCE
) -> Done:
    """Run ``python -m nls_tune.search`` to its end."""
    return run(*SEARCH, *arguments, folder=folder, env=env, seconds=seconds)


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:g} s it is still not so that {what}")
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(_parent(int(folder.name)), []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        mine = children.get(waiting.pop(), [])
        found += mine
        waiting += mine
    return found


def command_of(pid: int) -> str:
    """The command line of a process; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    # The name of the program stands in brackets and may hold blanks.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def run_in_terminal(
    command: tuple[str, ...], folder: Path, env: Mapping[str, str], *, columns: int = 80, seconds: float = 200.0
) -> tuple[int, str]:
    """Run a program with a terminal of its own; return its exit code and all that was shown."""
    master, slave = pty.openpty()
    own = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40", "NO_COLOR": None}
    env = environment({**env, **own})
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=env) as process:
        os.close(slave)
        shown, deadline = b"", time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 0.2)[0]:
                continue
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            shown += part
        else:
            process.kill()
        code = process.wait()
    os.close(master)
    return code, shown.decode(errors="replace")
