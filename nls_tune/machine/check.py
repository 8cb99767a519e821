"""The result of one check of the doctor, and running several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from nls_tune.errors import InputError, error_line

#: From good to bad.
CheckState = Literal["ok", "warning", "failure"]
EXIT_CODES: dict[CheckState, int] = {"ok": 0, "warning": 1, "failure": 2}
CheckFunction = Callable[[], Iterator["Check"]]


@dataclass(frozen=True)
class Check:
    """The result of one check: what was found, and what to do about it if it is not ok."""

    name: str
    state: CheckState
    found: str
    way_out: str = ""

    def __str__(self) -> str:
        return f"{self.found}; {self.way_out}" if self.way_out else self.found


def run_checks(functions: Mapping[str, CheckFunction]) -> Iterator[Check]:
    """Yield the results of some functions, each of which makes the checks of one name; an exception is a failure."""
    for name, function in functions.items():
        try:
            yield from function()
        except (InputError, RuntimeError) as error:
            yield failure(name, str(error))
        except Exception as error:  # whatever is broken here is what the doctor is asked for
            yield failure(name, f"the check itself fails ({error_line(error)})")


def failure(name: str, message: str) -> Check:
    """Return the failure that one of the package's messages says; these end with their way out."""
    found, _, way_out = " ".join(message.split()).rpartition("; ")
    return Check(name, "failure", found or way_out, way_out if found else "mend what this names")


def worst(checks: Iterable[Check]) -> CheckState:
    """Return the worst state of some checks."""
    return max((check.state for check in checks), key=EXIT_CODES.__getitem__, default="ok")
