"""The house: few rooms, no import cycle, nothing too long. Which floor may import which is checked by import-linter."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nls_tune"
ROOMS = {
    "allocation", "analysis", "cli", "datasets", "export", "losses", "machine", "noise", "plan", "report", "runs",
    "session", "spaces", "training", "tune",
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))
TEXTS = {path: path.read_text(encoding="utf-8") for path in FILES}


@functools.cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(text) for path, text in TEXTS.items()}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports() -> dict[str, set[str]]:
    """Which modules of the package each one imports: at its top, for type checking, or inside a function."""
    names = {name_of(path) for path in FILES}
    found: dict[str, set[str]] = {}
    for path, tree in trees().items():
        targets: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                targets |= {name if name in names else str(node.module) for name in whole}
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
        found[name_of(path)] = targets & names
    return found


def test_there_are_fifteen_rooms_and_six_files_at_the_door():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == ROOMS
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def test_no_module_imports_itself_by_a_detour():
    left = imports()
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    assert sorted(left) == []  # what is left imports each other in a circle, or waits for those that do


def test_a_file_has_at_most_400_lines_and_a_function_60():
    assert [name_of(path) for path in FILES if TEXTS[path].count("\n") > 400] == []
    functions = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60] == []


def test_values_of_any_kind_travel_at_the_borders_only():
    assert sum(text.count("dict[str, Any]") for text in TEXTS.values()) <= 60
    assert not [name_of(path) for path, text in TEXTS.items() if "locals()" in text]
