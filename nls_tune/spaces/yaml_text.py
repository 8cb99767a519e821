"""The one place where YAML is read: plain data, each key once, of a size that a person may have written."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml

#: The shipped spaces have a tenth of each at most.
_MOST_CHARACTERS, _MOST_VALUES, _DEEPEST = 50_000, 10_000, 20


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Aliases count as often as they are used: a few lines of them can stand for billions of values.

    Raises:
        ValueError: For a text that is not YAML, has a key twice, or is too long, too deep or too large; the message is
            one line.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters, {_MOST_CHARACTERS:,} are the most")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except Exception as error:  # a date with a 13th month, a number of a thousand digits, and so on
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())) from None


class _Loader(yaml.SafeLoader):
    """The safe loader, with limits."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Read a value, unless it is too deep, stands for too much, or has a key twice."""
        if self._depth == _DEEPEST:
            raise yaml.YAMLError(f"it is nested deeper than {_DEEPEST} times")
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None or isinstance(node, yaml.ScalarNode):
            return node
        if is_alias and node not in self._sizes:
            raise _error("a value stands in itself", node)
        if not is_alias:
            inside = [one for child in node.value for one in (child if isinstance(child, tuple) else (child,))]
            self._sizes[node] = 1 + sum(self._sizes.get(one, 1) for one in inside)
            if self._sizes[node] > _MOST_VALUES:
                raise _error(f"it stands for more than {_MOST_VALUES:,} values", node)
        if isinstance(node, yaml.MappingNode) and not is_alias:
            keys = Counter((key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if again := [name for (_, name), count in keys.items() if count > 1]:
                raise _error(f"the key {again[0]!r} is there twice", node)
        return node


def _error(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)
