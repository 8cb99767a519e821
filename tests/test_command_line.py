"""How commands end, and the commands' own surfaces: help, dry run, names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from commands import SEARCH, run, run_search

from nls_tune.command_line import run_app
from nls_tune.errors import InputError
from nls_tune.search import _resume_command, app

NLS_TUNE = (sys.executable, "-c", "import sys; sys.argv[0] = 'nls-tune'; from nls_tune.cli import main; main()")


def ending(outcome: object) -> typer.Typer:
    """A program that returns what it is given, or raises it."""
    program = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @program.command()
    def _program(number: int = 1) -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return program


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (None, 0, ""),
        (0, 0, ""),
        (130, 130, ""),
        (InputError("the rule, the value\n  and the way out"), 2, "error: the rule, the value and the way out\n"),
        (RuntimeError("every trial failed"), 1, "error: every trial failed\n"),
        (OSError("no space left on device"), 1, "error: no space left on device\n"),
        (typer.Abort(), 130, "error: interrupted\n"),
    ],
)
def test_the_exit_code_and_the_one_line(capsys, outcome, code, message):
    assert run_app(ending(outcome), []) == code
    assert capsys.readouterr() == ("", message)


def test_an_interrupted_program_shows_no_traceback(capsys):
    assert run_app(ending(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err in ("", "error: interrupted\n")


def test_a_usage_error_is_bad_input(capsys):
    assert run_app(ending(None), ["--number", "many"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: Invalid value for '--number'")
    assert err.count("\n") == 1


def test_a_defect_of_the_program_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_app(ending(ZeroDivisionError("a defect")), [])


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/x/search.py", "--epochs", "6"], "python -m nls_tune.search --epochs 6 --out 'runs/my run'"),
        (["/x/search.py", "--out", "here"], "python -m nls_tune.search --out here"),
        (["/x/search.py", "--out=here"], "python -m nls_tune.search --out=here"),
        (["/usr/bin/nls-tune", "search"], "nls-tune search --out 'runs/my run'"),
        (
            ["s.py", "--set", "milestones=[1, 2]", "--out", "o"],
            "python -m nls_tune.search --set 'milestones=[1, 2]' --out o",
        ),
    ],
)
def test_the_command_that_resumes(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    assert _resume_command(Path("runs/my run")) == command


class TestNlsTune:
    def test_it_has_the_same_search(self, tmp_path):
        done = run(*NLS_TUNE, "search", "--help", folder=tmp_path)
        assert (done.code, done.err) == (0, "")
        alone = run_search("--help", folder=tmp_path)
        assert done.out.partition("Options:")[2] == alone.out.partition("Options:")[2] != ""

    def test_without_a_command_it_prints_its_help(self, tmp_path):
        done = run(*NLS_TUNE, folder=tmp_path)
        text = done.out + done.err
        assert "error:" not in text
        assert "Usage: nls-tune" in text
        assert "\n  search " in text

    def test_a_command_that_does_not_exist(self, tmp_path):
        done = run(*NLS_TUNE, "serch", folder=tmp_path)
        assert done.has_failed_in_one_line(), done
        assert "'search'" in done.err


class TestDryRun:
    def test_it_prints_the_plan_starts_no_ray_and_writes_nothing(self, tmp_path):
        code = (
            "import sys; from nls_tune.command_line import run_app; from nls_tune.search import app; "
            "code = run_app(app); print('ray' in sys.modules); sys.exit(code)"
        )
        arguments = ("--noise", "symmetric:0.2,clean", "--num-trials", "8", "--epochs", "12", "--dry-run")
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

    def test_scaled_warm_ups_are_shown(self, capsys):
        assert run_app(app, ["--epochs", "12", "--dry-run"]) == 0
        assert "warmup_epochs: 0 to 3 (default 1)" in capsys.readouterr().out  # 0 to 10, default 4, at 40 epochs

    def test_an_arm_that_goes_empty_is_said(self, capsys):
        assert run_app(app, ["--num-trials", "1", "--dry-run"]) == 0
        notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Note: ")]
        assert {note.split()[2] for note in notes if "gets no trial" in note} == {"positive", "negative"}

    def test_the_plan_can_be_printed_where_there_is_no_unicode(self, tmp_path):
        """Minus signs and dashes are decoration: a Latin-1 locale must not end the program."""
        done = run(*SEARCH, "--dry-run", folder=tmp_path, env={"PYTHONIOENCODING": "latin-1"})
        assert (done.code, done.err) == (0, "")

    def test_a_pipe_that_closes_is_no_traceback(self, tmp_path):
        done = run("bash", "-c", f"{' '.join(SEARCH)} --dry-run | true", folder=tmp_path)
        assert (done.out, done.err) == ("", "")
