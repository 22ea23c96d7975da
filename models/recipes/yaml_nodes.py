"""YAML as a tree of nodes that know their lines, and the mistakes found in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import yaml

STANDARD_TAG = "tag:yaml.org,2002:"


class Mistakes(Exception):  # noqa: N818 - there may be several; `validation.read_text` makes one ConfigurationError of them
    """Mistakes in a file, as (line, message)."""

    def __init__(self, found: Iterable[tuple[int, str]]) -> None:
        self.found = list(found)
        super().__init__(self.found)


@dataclass(frozen=True)
class Place:
    """Where a value stands: file, line from 1, and path such as `degradation.sequence[1].gaussian_noise`."""

    file: str
    line: int = 1
    path: str = ""

    def mistake(self, message: str, line: int | None = None) -> Mistakes:
        """`FILE:LINE: PATH: message`."""
        at = self.line if line is None else line
        return Mistakes([(at, f"{self.file}:{at}: {self.path + ': ' if self.path else ''}{message}")])

    def key(self, name: str, line: int) -> Place:
        """The place of a mapping's value."""
        return replace(self, line=line, path=f"{self.path}.{name}" if self.path else name)

    def item(self, index: int, line: int) -> Place:
        """The place of a list's element."""
        return replace(self, line=line, path=f"{self.path}[{index}]")


def compose(text: str, file: str) -> yaml.Node:
    """The node tree of a YAML document; nothing is constructed.

    Raises:
        Mistakes: not YAML, empty, nested too deeply, or with anchors, aliases or tags.
    """
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = str(error.problem) if isinstance(error, _RefusedError) else f"not YAML: {error.problem}"
        raise Place(file, 1 if mark is None else mark.line + 1).mistake(message) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Place(file, line).mistake(f"not YAML: the character {error.character:#x} is not allowed") from error
    except RecursionError as error:
        raise Place(file).mistake("nested too deeply") from error
    if node is None:
        raise Place(file).mistake("the file is empty")
    return node


def entries_of(node: yaml.Node, place: Place) -> dict[str, tuple[yaml.Node, Place]]:
    """The entries of a mapping: key -> value and its place. Raises Mistakes for other nodes and for duplicate keys."""
    if not isinstance(node, yaml.MappingNode):
        raise place.mistake(f"expected a mapping, got {shown(node)}", line_of(node))
    entries: dict[str, tuple[yaml.Node, Place]] = {}
    for key, value in node.value:
        name = scalar(key)
        if name is None:
            raise place.mistake(f"expected a word as key, got {shown(key)}", line_of(key))
        if name in entries:
            message = f"duplicate key {name!r}; it stands in line {entries[name][1].line} already"
            raise place.mistake(message, line_of(key))
        entries[name] = (value, place.key(name, line_of(key)))
    return entries


def scalar(node: yaml.Node) -> str | None:
    """The text of a scalar; None for mappings and lists."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None


def has_tag(node: yaml.Node, name: str) -> bool:
    """Whether YAML takes a node for a `str`, `int`, `float`, `bool`, `null`, ..."""
    return bool(node.tag == STANDARD_TAG + name)


def line_of(node: yaml.Node) -> int:
    """Where a node begins, from 1."""
    line: int = node.start_mark.line
    return line + 1


def shown(node: yaml.Node) -> str:
    """A node in a message."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return repr(node.value) if node.value else "nothing"


class _RefusedError(yaml.MarkedYAMLError):
    """YAML, but more of it than a configuration needs."""


class _PlainLoader(yaml.SafeLoader):
    """A configuration is a tree of plain values: no small file unfolds into a huge one, and nothing is constructed."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self._refuse("anchors and aliases are not taken here; write the value out", event)
        if getattr(event, "tag", None) is not None:
            self._refuse(f"the tag {event.tag!r} is not taken here; leave it out", event)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    @staticmethod
    def _refuse(problem: str, event: Any) -> None:
        raise _RefusedError(problem=problem, problem_mark=event.start_mark)
