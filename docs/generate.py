"""Writes the pages of the site that follow from code or evidence: ``python docs/generate.py``.

``docs/templates/NAME.md`` becomes ``docs/NAME.md``. Templates are Jinja; a name that code or evidence does not have is
an error. ``tests/docs/test_generated.py`` compares the pages with what this program would write.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import re
import statistics
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import griffe
import jinja2
import typer
import yaml

DOCS = Path(__file__).parent
ROOT = DOCS.parent
TEMPLATES = DOCS / "templates"
EVIDENCE = ROOT / "benchmarks" / "evidence"
#: The template of a section of README.
PROVEN = "_proven.md"


def evidence(name: str) -> Any:
    """Return the content of ``benchmarks/evidence/NAME.json``."""
    return json.loads((EVIDENCE / f"{name}.json").read_text(encoding="utf-8"))


def source(name: str) -> str:
    """Return where a piece of evidence lies, with its date and hardware."""
    found = evidence(name)
    hardware = found.get("hardware", {})
    cores = hardware.get("cpus", hardware.get("cores"))
    where = f"{cores} cores of an {hardware['cpu']}" if hardware else ""
    date = found.get("date_utc", "")[:10]
    facts = ", ".join(part for part in (date, where) if part)
    return f"`benchmarks/evidence/{name}.json` ({facts})"


def benchmark(name: str) -> Any:
    """Return a module of ``benchmarks/`` or ``benchmarks/tabulated/``."""
    for folder in (ROOT / "benchmarks", ROOT / "benchmarks" / "tabulated"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    return importlib.import_module(name)


def table(name: str, *files: str) -> str:
    """Return the table that a benchmark makes of its evidence, by default of the file that has its name."""
    found = [evidence(file) for file in files or (name,)]
    lines: list[str] = benchmark(name).readme_table(found if files else found[0])
    return "\n".join(lines)


# Filters: fractions become percent or points


def percent(value: float, digits: int = 1) -> str:
    """Return a fraction as percent."""
    return f"{100 * value:.{digits}f} %"


def number(value: float, digits: int = 2) -> str:
    """Return a fraction as points, without a unit."""
    shown = f"{100 * value:.{digits}f}"
    return (shown if float(shown) else shown.removeprefix("-")).replace("-", "−")


def signed(value: float, digits: int = 1) -> str:
    """Return a fraction as points, always with a sign."""
    return f"{100 * value:+.{digits}f}".replace("-", "−")


def span(values: Iterator[float], digits: int = 0) -> str:
    """Return the smallest and the largest of some fractions as percent, without a unit."""
    found = [f"{100 * value:.{digits}f}" for value in sorted(values)]
    return f"{found[0]} to {found[-1]}"


def with_interval(row: Mapping[str, Any]) -> str:
    """Return a median with its interval as points."""
    low, high = row["interval"]
    return f"{number(row['median'])} [{number(low)}, {number(high)}]"


def cell(text: object) -> str:
    """Return a text that does not break a Markdown table."""
    return " ".join(str(text).replace("``", "`").split()).replace("|", "\\|")


# Code


def commands() -> Iterator[dict[str, Any]]:
    """Yield every command with its help, arguments and options, as ``--help`` has them."""
    from nls_tune.cli.main import app

    def walk(command: Any, path: str) -> Iterator[dict[str, Any]]:
        children = getattr(command, "commands", {})
        shown = [p for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
        arguments = [p for p in shown if p.param_type_name == "argument"]
        usage = [path, "COMMAND" if children else "[OPTIONS]", *(_argument(p) for p in arguments)]
        yield {
            "path": path,
            "usage": " ".join(usage),
            "help": re.sub(r"\[bold\](.*?)\[/bold\]", r"`\1`", inspect.cleandoc(command.help or "")),
            "arguments": [{"name": _argument(p), "help": p.help} for p in arguments],
            "panels": _panels([p for p in shown if p.param_type_name == "option"]),
            "commands": list(children),
        }
        for name, child in children.items():
            yield from walk(child, f"{path} {name}")

    yield from walk(typer.main.get_command(app), "nls-tune")


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper()).removesuffix("...")
    shown = f"{name}..." if parameter.nargs == -1 else name
    return shown if parameter.required else f"[{shown}]"


def _panels(options: Iterable[Any]) -> dict[str, list[dict[str, str]]]:
    """The options by the panel of the help in which they stand."""
    found: dict[str, list[dict[str, str]]] = {}
    for option in options:
        found.setdefault(getattr(option, "rich_help_panel", None) or "Options", []).append(_option(option))
    return found


def _option(parameter: Any) -> dict[str, str]:
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    if isinstance(default, enum.Enum):
        default = default.value
    shown = "" if default is None or default is False else f"`{default}`"
    value = "" if getattr(parameter, "is_flag", False) else f" {parameter.metavar or 'VALUE'}"
    return {"name": f"{names}{value}", "help": parameter.help or "", "default": shown}


def attributes(owner: type) -> dict[str, str]:
    """Return what the docstring of a class says of its attributes, by name."""
    sections = griffe.Docstring(inspect.getdoc(owner) or "", parser="google").parse()
    found = [a for s in sections if s.kind is griffe.DocstringSectionKind.attributes for a in s.value]
    more = meanings()["settings"] if owner.__name__ == "TrainingSettings" else {}
    return {a.name: a.description for a in found} | more


def meanings() -> dict[str, dict[str, str]]:
    """Return what code does not say itself: what the columns hold."""
    content: dict[str, dict[str, str]] = yaml.safe_load((TEMPLATES / "meanings.yaml").read_text(encoding="utf-8"))
    return content


def type_name(annotation: Any) -> str:
    """Return a type as a reader writes it: ``int``, ``sgd or adamw``, ``list of int``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments if a is not type(None))
    if origin in (tuple, list):
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return "object"
    name = getattr(annotation, "__name__", str(annotation))
    return {"str": "text", "datetime": "time", "Path": "path"}.get(name, name)


def fields(model: Any) -> list[dict[str, str]]:
    """Return the fields of a pydantic model with type, default and meaning."""
    meanings = attributes(model)
    return [
        {"name": name, "type": type_name(info.annotation), "default": _default(info), "meaning": meanings.get(name, "")}
        for name, info in model.model_fields.items()
    ]


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    return json.dumps(info.default, default=str) if not isinstance(info.default, tuple) else json.dumps([*info.default])


def columns(schema: Any, meaning_of: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the columns of a schema with type and meaning.

    Raises:
        KeyError: If a column has no meaning, or a meaning no column.
    """
    from nls_tune.spaces.settings import TrainingSettings

    settings = {f"config_{name}": f"Setting `{name}`: {text}" for name, text in attributes(TrainingSettings).items()}
    if extra := meaning_of.keys() - {field.name for field in schema}:
        raise KeyError(f"meanings of columns that there are not: {sorted(extra)}")
    kinds = {"string": "text", "int64": "int", "double": "float", "list<item: int64>": "list of int"}
    return [
        {
            "name": field.name,
            "type": kinds.get(str(field.type), str(field.type)),
            "null": "yes" if field.nullable else "",
            "meaning": meaning_of[field.name] if field.name in meaning_of else settings[field.name],
        }
        for field in schema
    ]


def render(page: str) -> str:
    """Return the text of a page, by the name of its template: ``reference/files.md``."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(  # noqa: S701 - Markdown, not HTML: nothing is to be escaped
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent, "number": number, "signed": signed, "span": span, "with_interval": with_interval,
        "mean": statistics.mean, "cell": cell, "type_name": type_name,
    }  # fmt: skip
    environment.globals |= {
        "evidence": evidence, "source": source, "table": table, "benchmark": benchmark, "commands": commands,
        "attributes": attributes, "fields": fields, "columns": columns, "module": importlib.import_module,
        "meanings": meanings(), "all_evidence": sorted(path.stem for path in EVIDENCE.glob("*.json")),
    }  # fmt: skip
    head = f"<!-- Written by docs/generate.py from docs/templates/{page}: change that, not this. -->\n\n"
    return ("" if page == PROVEN else head) + environment.get_template(page).render()


def pages() -> list[str]:
    """Return the pages that have a template."""
    found = (path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.md"))
    return sorted(page for page in found if page != PROVEN)


def readme() -> str:
    """Return README with its section of proven figures written anew."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before, rest = text.split("## What is proven\n\n")
    return f"{before}## What is proven\n\n{render(PROVEN)}\n## {rest.split('## ', 1)[1]}"


def main() -> None:
    """Write all pages."""
    sys.path.insert(0, str(ROOT))  # this clone's package, whatever is installed
    for page in pages():
        (DOCS / page).parent.mkdir(exist_ok=True)
        (DOCS / page).write_text(render(page), encoding="utf-8")
        print(f"docs/{page}")
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
    print("README.md")


if __name__ == "__main__":
    main()
