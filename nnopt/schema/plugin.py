"""The key ``plugins``."""

from dataclasses import dataclass
from typing import Annotated

from nnopt.schema.range import Text


@dataclass(frozen=True)
class PluginConfig:
    """A plug-in whose components the configuration can use.

    ``source`` is the path of a Python file, or the name of an installed plug-in. ``sha256`` is the
    hash of its code. A plug-in with another hash is refused.
    """

    source: str
    sha256: Annotated[str, Text("[0-9a-f]{64}", "64 hexadecimal digits")]
