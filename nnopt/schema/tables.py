"""The tables of components: dicts from a name to one part of a component.

Each part of a kind of component has one table: ``table("optimizer")`` has the dataclass of each
optimizer, ``table("optimizer/numpy")`` its update rule in NumPy. The module that uses a table fills
it with nnopt's own components. ``nnopt.config.plugins`` adds the components of plug-ins to the same
tables before a configuration is validated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from nnopt.errors import ConfigError, described

Key = TypeVar("Key")
Value = TypeVar("Value")

_TABLES: dict[str, dict[Any, Any]] = {}


class Component(NamedTuple):
    """A component of a plug-in."""

    kind: str  # such as "optimizer"
    name: str  # the name in YAML
    source: str  # the plug-in, for messages
    file: str  # the path of the Python file that defines the component
    backends: tuple[str, ...]  # the backends that can compute the component

    def error(self, reason: str) -> ConfigError:
        """Return an error about this component."""
        line = " ".join(reason.split())  # a value in the reason may have line breaks
        return ConfigError(f"{self.source}: the {self.kind} {self.name!r} {line}")

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Convert every exception of the plug-in's code to a ConfigError that names the line."""
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:
            raise self.error(f"fails in {part}: {described(error, self.file)}") from error


COMPONENTS: dict[tuple[str, str], Component] = {}
"""Kind and name -> component, for the components of the active plug-ins."""


def table(name: str) -> dict[Any, Any]:
    """Return a table. The same name returns the same dict."""
    return _TABLES.setdefault(name, {})


def filled(name: str, entries: Mapping[Key, Value]) -> dict[Key, Value]:
    """Add nnopt's own entries to a table, before those of plug-ins, and return the table."""
    found = table(name)
    others = {key: value for key, value in found.items() if key not in entries}
    found.clear()
    found.update(entries)
    found.update(others)
    return found
