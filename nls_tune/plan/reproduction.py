"""Tables to reproduce: which searches make their rows, and which figures were published for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nls_tune.errors import InputError, unknown_name
from nls_tune.plan.settings import SearchSettings, check_search_settings
from nls_tune.spaces.reading import set_the_same, shipped_folder
from nls_tune.spaces.settings import describe_validation_error
from nls_tune.spaces.yaml_text import parse_yaml

_Text = Annotated[str, Field(min_length=1)]
_Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$")]
#: The settings of a search as a YAML file gives them.
Given = dict[str, object]


class TableRow(BaseModel):
    """A row: one noise level of a dataset, and settings of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: _Text
    noise: _Text
    settings: Given = {}


class Published(BaseModel):
    """Figures that others have published: what they are, where they stand, and in % by the names of rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: _Text
    source: _Text
    values: dict[str, Annotated[float, Field(ge=0, le=100)]]


class ReproductionTable(BaseModel):
    """A table, as its YAML file says it; ``settings`` are those of all rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: _Text
    settings: Given = {}
    rows: Annotated[dict[_Name, TableRow], Field(min_length=1)]
    published: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _check_rows(self) -> ReproductionTable:
        for figures in self.published:
            for name in figures.values:
                if name not in self.rows:
                    raise ValueError(f"published figures need a row, {name!r} is none; valid: {', '.join(self.rows)}")
        return self

    def named(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of some rows in the order of the table, of all if none is named; InputError: unknown."""
        for name in names:
            if name not in self.rows:
                raise unknown_name("row", name, self.rows)
        return tuple(name for name in self.rows if not names or name in names)

    def search_of(self, name: str, out: Path, changes: Given) -> SearchSettings:
        """Return the search that makes a row; ``changes`` are the user's own settings.

        Raises:
            InputError: For an unknown setting or a value out of range.
        """
        row = self.rows[name]
        parts = (self.settings, row.settings, changes)
        given = {key: value for part in parts for key, value in part.items()}
        overrides: list[str] = []
        for part in parts:
            own = cast("Sequence[str]", part.get("overrides", ()))
            # What comes later replaces the same setting of the table and leaves its others alone.
            overrides = [one for one in overrides if not any(set_the_same(one, other) for other in own)]
            if "methods" in part:
                overrides = [one for one in overrides if not one.strip().startswith("arms.")]
            overrides += own
        given["overrides"] = overrides
        return check_search_settings(**{**given, "dataset": row.dataset, "noise": (row.noise,), "out": out})


def shipped_tables() -> list[str]:
    """Return the names of the tables that come with the package."""
    return sorted(path.stem for path in (shipped_folder() / "tables").glob("*.yaml"))


def load_table(name_or_path: str) -> ReproductionTable:
    """Read a table: a shipped one by its name, or a YAML file.

    Raises:
        InputError: For an unknown name, or a file that cannot be read or does not describe a table.
    """
    if name_or_path in shipped_tables():
        path = shipped_folder() / "tables" / f"{name_or_path}.yaml"
    elif name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path).expanduser()
    else:
        raise unknown_name("table", name_or_path, shipped_tables())
    try:
        table = ReproductionTable.model_validate(parse_yaml(path.read_text(encoding="utf-8")))
        for name in table.rows:
            table.search_of(name, Path("out"), {})
    except OSError as error:
        raise InputError(f"the table {path} cannot be read ({error.strerror or error}); check the path") from None
    except ValidationError as error:
        raise InputError(f"the table {path} is not valid: {describe_validation_error(error)}") from None
    except (InputError, ValueError) as error:
        raise InputError(f"the table {path} is not valid: {error}") from None
    return table
