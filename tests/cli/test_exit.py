"""How commands end, and the commands' own surfaces: help, dry run, names."""

import errno
import os
import shlex
import sys
from pathlib import Path

import pytest
import typer
from commands import SEARCH, run, run_search
from fake_runs import write_fake_run

from nls_tune.cli import main as cli
from nls_tune.cli.exit import run_app
from nls_tune.cli.search import _resume_command, app
from nls_tune.errors import InputError

NLS_TUNE = (sys.executable, "-c", "import sys; sys.argv[0] = 'nls-tune'; from nls_tune.cli.main import main; main()")


def ending(outcome: object) -> typer.Typer:
    """A program that returns what it is given, or raises it."""
    program = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @program.command()
    def _program() -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return program


def with_notes(message: str, *notes: str) -> InputError:
    """An error that is several."""
    error = InputError(message)
    for note in notes:
        error.add_note(note)
    return error


@pytest.fixture(scope="module")
def small_run(tmp_path_factory) -> Path:
    """A finished run of four trials."""
    return write_fake_run(tmp_path_factory.mktemp("small") / "run", levels=("clean",), trials=4, epochs=3)


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (None, 0, ""),
        (0, 0, ""),
        (130, 130, ""),
        (InputError("the rule, the value\n  and the way out"), 2, "error: the rule, the value and the way out\n"),
        (with_notes("first", "second\n  line"), 2, "error: first\nerror: second line\n"),
        (RuntimeError("every trial failed"), 1, "error: every trial failed\n"),
        (OSError("no space left on device"), 1, "error: no space left on device\n"),
        (OSError(errno.ENOSPC, "Full"), 1, "error: Full; make room and give the same command again\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "error: Permission denied: /x\n"),
        (typer.Abort(), 130, "error: interrupted\n"),
    ],
)
def test_the_exit_code_and_the_one_line(capsys, outcome, code, message):
    assert run_app(ending(outcome), []) == code
    assert capsys.readouterr() == ("", message)


def test_an_interrupted_program_shows_no_traceback(capsys):
    assert run_app(ending(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err in ("", "error: interrupted\n")


@pytest.mark.parametrize("outcome", [ZeroDivisionError("a defect"), SystemExit(3)])
def test_a_defect_is_not_hidden_and_a_program_that_ends_itself_keeps_its_code(outcome):
    with pytest.raises(type(outcome)) as ended:
        run_app(ending(outcome), [])
    assert ended.value.args == outcome.args


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/x/search.py", "--epochs", "6"], "python -m nls_tune.search --epochs 6 --out 'runs/my run'"),
        (["/x/search.py", "--out", "here"], "python -m nls_tune.search --out here"),
        (["/x/search.py", "--out=here"], "python -m nls_tune.search --out=here"),
        (["/usr/bin/nls-tune", "search"], "nls-tune search --out 'runs/my run'"),
        (["s.py", "--set", "a=[1, 2]", "--out", "o"], "python -m nls_tune.search --set 'a=[1, 2]' --out o"),
    ],
)
def test_the_command_that_resumes(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    assert _resume_command(Path("runs/my run")) == command


@pytest.mark.slow
class TestNlsTune:
    def test_it_has_the_same_search(self, tmp_path):
        done = run(*NLS_TUNE, "search", "--help", folder=tmp_path)
        assert (done.code, done.err) == (0, "")
        alone = run_search("--help", folder=tmp_path)
        assert done.out.partition("─ Options")[2] == alone.out.partition("─ Options")[2] != ""

    def test_without_a_command_it_prints_its_help_and_a_wrong_one_is_named(self, tmp_path):
        done = run(*NLS_TUNE, folder=tmp_path)
        text = done.out + done.err
        assert "error:" not in text
        assert "Usage: nls-tune" in text
        assert "\n│ search " in text
        done = run(*NLS_TUNE, "serch", folder=tmp_path)
        assert done.has_failed_in_one_line(), done
        assert "'search'" in done.err
        assert done.err.endswith("? nls-tune --help says what there is\n")


class TestDryRun:
    @pytest.mark.slow
    def test_it_prints_the_plan_starts_no_ray_and_writes_nothing(self, tmp_path):
        code = (
            "import sys; from nls_tune.cli.exit import run_app; from nls_tune.search import app; "
            "code = run_app(app); print('ray' in sys.modules); sys.exit(code)"
        )
        arguments = (
            "--dataset",
            "twonorm",
            "--noise",
            "symmetric:0.2,clean",
            "--num-trials",
            "8",
            "--epochs",
            "12",
            "--dry-run",
        )
        cache = tmp_path / "cache"
        done = run(sys.executable, "-c", code, *arguments, folder=tmp_path, env={"XDG_CACHE_HOME": str(cache)})
        assert (done.code, done.err) == (0, "")
        *plan, ray_imported = done.out.splitlines()
        assert ray_imported == "False"
        assert list(tmp_path.iterdir()) == []
        assert any(line.startswith("2 noise levels, 16 trials of 12 epochs") for line in plan)
        rows = {line.split()[0]: line.split()[1:] for line in plan if "%" in line}
        assert rows["symmetric:0.2"] == ["20.0", "%", "−0.6667", "2", "2", "4"]
        assert rows["clean"] == ["0.0", "%", "0", "2", "2", "4"]

    def test_scaled_warm_ups_are_shown_and_an_arm_that_goes_empty_is_said(self, capsys):
        assert run_app(app, ["--dataset", "twonorm", "--epochs", "12", "--num-trials", "1", "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert "warmup_epochs: 0 to 3 (default 1)" in out  # 0 to 10, default 4, at 40 epochs
        notes = [line for line in out.splitlines() if line.startswith("Note: ")]
        assert {note.split()[2] for note in notes if "gets no trial" in note} == {"positive", "negative"}

    @pytest.mark.slow
    def test_the_plan_can_be_printed_where_there_is_no_unicode(self, tmp_path):
        """Minus signs and dashes are decoration: a Latin-1 locale must not end the program."""
        done = run(*SEARCH, "--dry-run", folder=tmp_path, env={"PYTHONIOENCODING": "latin-1"})
        assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        "analyze RUN", "analyze RUN --format json", "analyze RUN --format csv", "runs RUN", "watch RUN", "report RUN",
        "export optuna RUN log", "search --dry-run", "--help", "search --help",
    ],
)  # fmt: skip
def test_every_command_ends_quietly_when_nobody_reads_its_output(command, small_run, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        code = run_app(cli.app, command.replace("RUN", str(small_run)).split())
    assert code == 141
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_closed_stream_ends_in_no_traceback_and_no_file_gets_the_output(small_run, tmp_path, redirect):
    page = tmp_path / "report.html"
    command = f"{shlex.join([*NLS_TUNE, 'report', str(small_run), '--out', str(page)])} {redirect}"
    done = run("sh", "-c", command, folder=tmp_path)
    assert done.code == 0
    assert "Traceback" not in done.out + done.err
    assert page.read_bytes().strip().startswith(b"<!DOCTYPE")
    assert page.read_bytes().strip().endswith(b"</html>")


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["0", ""])
def test_a_screen_without_columns_shows_everything(small_run, tmp_path, columns):
    shown = [
        run(*NLS_TUNE, "analyze", str(small_run), folder=tmp_path, env={"COLUMNS": value}) for value in (columns, None)
    ]
    assert shown[0].out == shown[1].out
    assert "clean" in shown[0].out
