"""Plug-ins: the registry of their components, and loading.

Plug-ins import classes from ``nnopt``; see ``docs/plugins.md``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

refuses_new_files: ContextVar[bool] = ContextVar("refuses_new_files", default=False)
"""Whether the file of a plug-in that is not loaded is refused instead of executed."""


@contextmanager
def loaded_files_only() -> Iterator[None]:
    """Refuse the files of plug-ins that are not loaded, within the context.

    A received folder may name them in its stored command line or in its YAML files.
    """
    token = refuses_new_files.set(True)
    try:
        yield
    finally:
        refuses_new_files.reset(token)
