"""An import by the old name of a module is refused, and the message contains the new name."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

from nnopt.schema.moved_modules import MOVED_MODULES


@pytest.mark.parametrize("old", MOVED_MODULES)
def test_import_of_old_module_points_to_existing_new_module(old: str) -> None:
    with pytest.raises(ImportError, match=rf"{old} is now ({MOVED_MODULES[old]})"):
        importlib.import_module(old)
    for new in MOVED_MODULES[old].replace(" or ", ", ").split(", "):
        assert importlib.util.find_spec(new) is not None


def test_import_from_old_module_points_to_new_module() -> None:
    with pytest.raises(ImportError, match=r"nnopt\.compose is now nnopt\.config\.compose"):
        from nnopt.compose import compose_config  # type: ignore[import-not-found] # noqa: F401
    with pytest.raises(ImportError, match=r"nnopt\.run is now nnopt\.recipe\.run"):
        from nnopt import run  # type: ignore[attr-defined] # noqa: F401


def test_import_of_module_in_old_package_points_to_new_package() -> None:
    with pytest.raises(ImportError, match=r"numpy_scratch is now nnopt\.backends\.numpy"):
        importlib.import_module("nnopt.backends.numpy_scratch.ops.dense")


def test_unknown_module_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("nnopt.no_such_module")
