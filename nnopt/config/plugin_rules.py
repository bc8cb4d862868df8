"""Rules for the components of plug-ins."""

from __future__ import annotations

from collections.abc import Iterator

from nnopt.architecture.plugins import used_components
from nnopt.errors import ConfigError
from nnopt.schema import Config
from nnopt.schema.tables import Component, filled

LABELS_ONLY = filled("loss/labels_only", {"hinge": None})
"""The losses that need labels, and not fractions of classes, as keys."""


def plugins(config: Config) -> Iterator[str]:
    """Refuse components of plug-ins that the configuration does not name.

    The plug-ins of another point of a sweep, or of another file, can be active as well.
    """
    named = {plugin.sha256 for plugin in config.plugins}
    for component in _used(config):
        from nnopt.config.plugins.load import owner_of  # not needed by most configurations

        if owner_of(component).sha256 not in named:
            yield (
                f"plugins: the {component.kind} {component.name!r} needs {component.source}, which "
                "this configuration does not name; add it to plugins"
            )


def backends(config: Config) -> Iterator[str]:
    """Refuse components that the configured backend cannot compute."""
    for component in _used(config):
        if config.backend.name not in component.backends:
            (other,) = component.backends
            yield (
                f"the {component.kind} {component.name!r} of {component.source} has no part for "
                f"{{backend.name}}; set backend={other}"
            )


def _used(config: Config) -> list[Component]:
    try:
        return used_components(config)
    except ConfigError:  # reported by the rule for layers
        return []
