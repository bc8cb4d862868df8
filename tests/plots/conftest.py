"""Fixtures that record the saved figures and check a PNG file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest

from nnopt.plots import style

CheckPng = Callable[[Path], np.ndarray]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """Return a list to which every figure that the test saves is added."""
    saved: list[matplotlib.figure.Figure] = []
    save = matplotlib.figure.Figure.savefig

    def spy(self: matplotlib.figure.Figure, *arguments: Any, **options: Any) -> None:
        saved.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", spy)
    return saved


@pytest.fixture
def check_png(
    figures: list[matplotlib.figure.Figure], caplog: pytest.LogCaptureFixture
) -> CheckPng:
    """Return a function that checks the file of the last plot and returns its pixels (H, W, 3)."""

    def check(path: Path) -> np.ndarray:
        from PIL import Image

        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        size = figures[-1].get_size_inches() * style.DPI
        assert np.abs(struct.unpack(">II", data[16:24]) - size).max() <= 1
        pixels = np.asarray(Image.open(path).convert("RGB"))
        for half in (*np.array_split(pixels, 2, axis=0), *np.array_split(pixels, 2, axis=1)):
            assert (half < 200).any(axis=2).sum() > 20, "half of the image is blank"
        border = np.concatenate([pixels[:2].reshape(-1, 3), pixels[:, :2].reshape(-1, 3)])
        assert (border == 255).all(), "a drawing touches the border"
        assert [record.message for record in caplog.records] == []
        assert [left.name for left in path.parent.iterdir() if left.suffix == ".tmp"] == []
        return pixels

    return check
