"""Loads plug-ins, and activates their components: adds them to nnopt's tables.

A plug-in is identified by the SHA-256 of its code. The module of each code is executed once per
process.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from nnopt.config.plugins import refuses_new_files
from nnopt.config.plugins.registry import Registration, Registry
from nnopt.errors import ConfigError, Problems, described, refused_value
from nnopt.io.paths import path_problem
from nnopt.schema import PluginConfig
from nnopt.schema.tables import COMPONENTS, Component, table

KEY = "plugins"
"""The key of the configuration that names the plug-ins."""

GROUP = "nnopt.plugins"
"""The group of the entry points of installed plug-ins."""

REGISTER = "register"
"""The function of a plug-in that registers its components."""

MAX_BYTES = 10_000_000

RECEIVED = (
    "may have been received with the resumed or read folder, and nnopt runs no code of a received "
    f"folder; to trust the file, add '{KEY}=[{{}}]' to the command line"
)
"""The reason to refuse a file; the placeholder is its path."""


@dataclass(frozen=True)
class Plugin:
    """A loaded plug-in."""

    source: str  # the absolute path of a file, or the name of an entry point
    sha256: str
    registrations: tuple[Registration, ...]

    def as_record(self) -> dict[str, str]:
        """Return the entry of the key ``plugins`` in a resolved configuration."""
        return {"source": self.source, "sha256": self.sha256}


_loaded: dict[str, Plugin] = {}
"""SHA-256 -> plug-in, for all plug-ins that this process has executed."""

_active: dict[str, Plugin] = {}
"""SHA-256 -> plug-in, for the plug-ins whose components are in the tables."""


def activate(entries: Iterable[Any]) -> list[dict[str, str]]:
    """Load plug-ins and add their components to the tables. Return a record of each plug-in.

    ``entries`` are paths of Python files, names of entry points, or records. An active plug-in that
    is not among them stays active, unless it has a component of the same kind and name. Raises
    ConfigError if a plug-in cannot be loaded, or differs from its record.
    """
    problems, plugins = Problems(), dict[str, Plugin]()
    for entry in entries:
        with problems.collect():
            plugin = load(entry)
            plugins[plugin.sha256] = plugin
    problems.check()
    for plugin in plugins.values():
        if plugin.sha256 not in _active:
            _add(plugin, plugins)
    return [plugin.as_record() for plugin in plugins.values()]


def deactivate(names: Iterable[str] | None = None) -> None:
    """Remove the components of plug-ins, given by their SHA-256; by default, of all plug-ins."""
    for sha256 in list(_active) if names is None else names:
        for registration in _active.pop(sha256).registrations:
            _remove(registration)


def stored_plugins(container: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a stored configuration with the current paths of its plug-ins, before it is read.

    ``folder`` contains the configuration, and may be a download. A file inside this folder, and a
    path with another spelling than nnopt records, are refused, unless the plug-in is already loaded
    because the command line names it. Raises ConfigError.
    """
    records = []
    for record in container.get(KEY) or ():
        if not _is_record(record):
            return dict(container)  # the schema refuses it
        loaded = _loaded.get(record["sha256"])
        source = record["source"]
        if loaded is None and _is_file(source) and not path_problem(source):
            path = _canonical(source)
            if source != str(path) or path.is_relative_to(folder.resolve()):
                raise ConfigError(refused_value(KEY, source, RECEIVED.format(path)))
        records.append(record if loaded is None else loaded.as_record())
    return {**container, KEY: records}


def _is_record(entry: Any) -> bool:
    is_map = isinstance(entry, Mapping) and set(entry) == {"source", "sha256"}
    return is_map and all(isinstance(value, str) for value in entry.values())


def activate_records(entries: Any) -> None:
    """Activate the plug-ins of a resolved configuration. Other entries are left to the schema."""
    activate(filter(_is_record, entries if isinstance(entries, list) else ()))


def load(entry: Any) -> Plugin:
    """Load the plug-in of a path, a name or a record. Raises ConfigError."""
    expected = None
    if isinstance(entry, PluginConfig):
        entry, expected = entry.source, entry.sha256
    elif _is_record(entry):
        entry, expected = entry["source"], entry["sha256"]
    if expected in _loaded:
        return _loaded[expected]
    if not isinstance(entry, str) or not entry:
        reason = "needs the path of a Python file, or the name of an installed plug-in"
        raise ConfigError(refused_value(KEY, entry, reason))
    is_file = _is_file(entry)
    path, code = _file(entry) if is_file else _installed(entry)
    sha256 = hashlib.sha256(code).hexdigest()
    if expected not in (None, sha256):
        raise ConfigError(
            refused_value(
                KEY,
                entry,
                f"has changed since the configuration was recorded: its SHA-256 is {sha256[:10]}, "
                f"recorded {expected[:10]}; restore its code, or start a new run",
            )
        )
    if sha256 not in _loaded:
        if is_file and refuses_new_files.get():
            raise ConfigError(refused_value(KEY, entry, RECEIVED.format(path)))
        register = _executed(entry, path, code, sha256) if is_file else _imported(entry, path)
        shown = os.path.relpath(path) if is_file and path.is_relative_to(Path.cwd()) else entry
        registry = Registry(shown, str(path))
        with _reported(entry, path):
            register(registry)
        if not registry.registrations:
            raise ConfigError(refused_value(KEY, entry, "registers no component"))
        _loaded[sha256] = Plugin(entry, sha256, tuple(registry.registrations))
    source = str(path) if is_file else entry  # the same code may have been loaded from another path
    plugin = _loaded[sha256] = replace(_loaded[sha256], source=source)
    return plugin


def _is_file(entry: str) -> bool:
    """Return whether an entry is the path of a file, and not the name of an installed plug-in."""
    return entry.endswith(".py")


def _canonical(text: str) -> Path:
    """Return the absolute path of a file without links, relative to the working directory."""
    return Path(os.path.realpath(os.path.expanduser(text)))


def _file(text: str) -> tuple[Path, bytes]:
    """Return the canonical path and the code of a file."""
    if problem := path_problem(text):
        raise ConfigError(refused_value(KEY, text, problem))
    path = _canonical(text)
    try:
        with path.open("rb") as file:
            code = file.read(MAX_BYTES + 1)
    except OSError as error:
        base = "" if str(path) == text else f" in {path.parent}"
        reason = f"cannot be read{base}: {error.strerror}; restore the file, or give its new path"
        raise ConfigError(refused_value(KEY, text, reason)) from error
    if len(code) > MAX_BYTES:
        raise ConfigError(refused_value(KEY, text, f"is larger than {MAX_BYTES:,} bytes"))
    return path, code


def _executed(entry: str, path: Path, code: bytes, sha256: str) -> Callable[[Registry], Any]:
    """Execute a file as a module, and return its function ``register``."""
    name = f"nnopt_plugin_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{sha256[:12]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # so that classes can be pickled
    try:
        with _reported(entry, path):
            exec(compile(code, str(path), "exec"), vars(module))
        return _register_of(entry, module)
    except ConfigError:
        del sys.modules[name]
        raise


def _installed(name: str) -> tuple[Path, bytes]:
    """Return the file of an installed plug-in, and the code of its package."""
    from importlib.util import find_spec

    point = _entry_point(name)
    with _reported(name, Path()):
        spec = find_spec(point.module)
    if spec is None or spec.origin is None:
        reason = f"its entry point names the module {point.module!r}, which is not installed"
        raise ConfigError(refused_value(KEY, name, reason))
    path = Path(spec.origin)
    files = sorted(path.parent.rglob("*.py")) if spec.submodule_search_locations else [path]
    return path, b"\0".join(file.read_bytes() for file in files)


def _imported(name: str, path: Path) -> Callable[[Registry], Any]:
    """Import an installed plug-in, and return the function that its entry point names."""
    point = _entry_point(name)
    with _reported(name, path):
        found = point.load()
    return _register_of(name, found) if isinstance(found, ModuleType) else _callable(name, found)


def _entry_point(name: str) -> Any:
    from importlib.metadata import entry_points  # slow, so it is not needed by a run without it

    found = entry_points(group=GROUP)
    for point in found:
        if point.name == name:
            return point
    names = ", ".join(sorted(point.name for point in found)) or "none"
    reason = f"there is no such installed plug-in; installed: {names}; a file needs its suffix .py"
    raise ConfigError(refused_value(KEY, name, reason))


def _register_of(entry: str, module: ModuleType) -> Callable[[Registry], Any]:
    if not hasattr(module, REGISTER):
        reason = f"is incomplete: it defines no function {REGISTER}(registry)"
        raise ConfigError(refused_value(KEY, entry, reason))
    return _callable(entry, getattr(module, REGISTER))


def _callable(entry: str, register: Any) -> Callable[[Registry], Any]:
    if not callable(register):
        raise ConfigError(refused_value(KEY, entry, f"its {REGISTER} is no function"))
    function: Callable[[Registry], Any] = register
    return function


@contextmanager
def _reported(entry: str, path: Path) -> Iterator[None]:
    """Convert the exceptions of a plug-in's code to a ConfigError that names the line."""
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"fails to load: {described(error, str(path))}"
        raise ConfigError(refused_value(KEY, entry, reason)) from error


def _add(plugin: Plugin, wanted: Mapping[str, Plugin]) -> None:
    """Add the components of a plug-in to the tables. Raises ConfigError for a taken name."""
    owners = {
        registration.component[:2]: sha256
        for sha256, each in _active.items()
        for registration in each.registrations
    }
    problems = Problems()
    for registration in plugin.registrations:
        component = registration.component
        name_table, name, _ = registration.entries[0]
        kinds = ("layer", "activation") if name_table == "layer" else (component.kind,)
        owner = next((owners[k, name] for k in kinds if (k, name) in owners), None)
        if owner is not None and owner not in wanted and owner in _active:
            deactivate([owner])
        elif owner is not None and owner in _active:
            other = _active[owner].registrations[0].component.source
            problems += component.error(f"has a name that {other} has registered").problems
        elif name in table(name_table):
            problems += component.error("has the name of a component of nnopt; rename it").problems
    problems.check()
    for registration in plugin.registrations:
        component = registration.component
        COMPONENTS[component.kind, component.name] = component
        for name_table, key, value in registration.entries:
            table(name_table)[key] = value
    _active[plugin.sha256] = plugin


def _remove(registration: Registration) -> None:
    component = registration.component
    del COMPONENTS[component.kind, component.name]
    for name_table, key, _ in registration.entries:
        del table(name_table)[key]


def owner_of(component: Component) -> Plugin:
    """Return the active plug-in that has registered a component."""
    (plugin,) = (
        plugin
        for plugin in _active.values()
        if any(registration.component is component for registration in plugin.registrations)
    )
    return plugin
