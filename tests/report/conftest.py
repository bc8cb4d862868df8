"""A sweep with points (planned runs) of six statuses, and a browser for the sweep's report."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from nnopt.config.point import to_yaml
from nnopt.io.locks import hold
from nnopt.results.metrics_file import METRICS_COLUMNS

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

LeaveRun = Callable[..., Path]

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")

EVIL = '</script><script>document.title="taken"</script><!--<b>&amp;"\u2028'
"""Text that would break the page if it were not escaped."""

EPOCHS = 30


def _write_metrics(folder: Path, level: float, epochs: int = EPOCHS) -> None:
    """Write ``metrics.csv``.

    The validation loss is level / epoch, and the training loss is half of the validation loss.
    """
    rows = []
    for epoch in range(1, epochs + 1):
        loss = level / epoch
        accuracy = 1 / (1 + loss)
        rows.append(
            [epoch, 10 * epoch, 0.1, loss / 2, accuracy, loss, accuracy, 0.0, 1.0, 0.5, 0.0]
        )
    with (folder / "metrics.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([METRICS_COLUMNS, *rows])


def _write_plot(path: Path, size: int = 64) -> None:
    """Write an image of ``size`` x ``size`` pixels of noise, which no format compresses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture(scope="session")
def write_metrics() -> Callable[..., None]:
    """Return ``_write_metrics``, which is called as ``write_metrics(folder, 1.5, epochs=20)``."""
    return _write_metrics


@pytest.fixture(scope="session")
def write_plot() -> Callable[..., None]:
    """Return ``_write_plot``, which is called as ``write_plot(path, 64)``."""
    return _write_plot


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, leave_run: LeaveRun) -> Iterator[Path]:
    """Yield the folder of a sweep with points of six statuses.

    sgd and adam have three finished points each. One point each is failed, running, damaged,
    pending and timeout.
    """
    folder = tmp_path_factory.mktemp("reported") / "a <b> & sweep"
    table = [["number", "id", "status", "error", "optimizer", "seed", "test_accuracy"]]

    def leave(optimizer: str, seed: int, status: str = "done", **summary: Any) -> Path:
        name = f"{optimizer}-{seed}"
        summary["overrides"] = [f"optimizer={optimizer}", f"seed={seed}", "epochs=30"]
        point = leave_run(folder / name, seed, {"optimizer": optimizer}, status=status, **summary)
        level = {"sgd": 1.0, "adam": 2.0}[optimizer] * (1 + seed / 10)
        _write_metrics(point, level)
        config = json.loads((point / "summary.json").read_bytes())["config"]
        (point / "config.yaml").write_text(to_yaml(config))
        (point / "run.log").write_text("2026-01-02 03:04:05,678 INFO begun\nlast line\n")
        table.append([str(len(table)), name, status, "", optimizer, str(seed), ""])
        return point

    for seed, accuracies in enumerate([(0.80, 0.90), (0.82, 0.93), (0.84, 0.99)]):
        for optimizer, accuracy in zip(("sgd", "adam"), accuracies, strict=True):
            summary = {"test_accuracy": accuracy, "total_seconds": 60.0}
            _write_plot(leave(optimizer, seed, **summary) / "plots" / "confusion.png")
    failed = leave("sgd", 3, "failed", error=f"ValueError: {EVIL}", test_accuracy=None)
    (failed / "run.log").write_text(f"2026-01-02 03:00:00,000 INFO\nTraceback {EVIL}\n")
    (leave("adam", 3) / "summary.json").unlink()
    table[-1][2] = "interrupted"  # as recorded before the point was resumed
    (leave("adam", 4) / "summary.json").write_text('{"status": "do')
    table.append([str(len(table)), "lion-0", "pending", "", "lion", "0", ""])
    table.append([str(len(table)), "lion-1", "timeout", "took longer than 60 s", "lion", "1", ""])
    with (folder / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    with hold(folder / "adam-3"):
        yield folder


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    """Yield a headless Chromium with a window of 1400 x 1000 pixels and a new profile."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip(f"no browser: {CHROMIUM} and {DRIVER} are not both there")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for word in (
            *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"),
            *("no-first-run", "disable-background-networking", "disable-component-update"),
            *("disable-sync", "window-size=1400,1000", "hide-scrollbars"),
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{word}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        yield driver
        driver.quit()
