"""Rules for the components of plug-ins."""

from __future__ import annotations

from collections.abc import Iterator

from nnopt.architecture.plugins import used_components
from nnopt.errors import ConfigError
from nnopt.schema import Config
from nnopt.schema.tables import filled

LABELS_ONLY = filled("loss/labels_only", {"hinge": None})
"""The losses that need labels, and not fractions of classes, as keys."""


def backends(config: Config) -> Iterator[str]:
    """Refuse components that the configured backend cannot compute."""
    try:
        components = used_components(config)
    except ConfigError:  # reported by the rule for layers
        return
    for component in components:
        if config.backend.name not in component.backends:
            (other,) = component.backends
            yield (
                f"the {component.kind} {component.name!r} of {component.source} has no part for "
                f"{{backend.name}}; set backend={other}"
            )
