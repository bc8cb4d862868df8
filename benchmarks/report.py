"""Measure the size of a sweep's report and the time until a browser has painted it.

    python benchmarks/report.py

The report has 200 runs (40 settings with 5 seeds each) and their plots. It must be at most 5 MB,
and a new headless Chromium must paint its tables and chart within 2 s (median of five). The runs
are copies of one run of 60 epochs, with different settings and curves. Exits with 1 if a target is
missed, and with 2 if Chromium is missing.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import Table, machine_line, run_nnopt

from nnopt.results.summary import FILES, write_summary

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")

CHROMIUM_OPTIONS = "headless=new no-sandbox disable-gpu disable-dev-shm-usage no-first-run"
CHROMIUM_OPTIONS += " disable-background-networking disable-component-update"
CHROMIUM_OPTIONS += " window-size=1400,1000"

OPTIMIZERS = ("sgd", "momentum", "adam", "rmsprop")
RATES = tuple(float(f"{10 ** (-k / 2):.1g}") for k in range(10))
SEEDS = range(5)
ROUNDS = 5
MAX_MEGABYTES, MAX_SECONDS = 5.0, 2.0


def main() -> int:
    """Print the table; return 1 if a target is missed."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        print(f"not measured: {CHROMIUM} and {DRIVER} are required")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_nnopt("run", f"hydra.run.dir={folder / 'run'}")
        write_sweep(folder / "run", folder / "sweep")
        writing = run_nnopt("report", folder / "sweep")
        page = folder / "sweep" / "report.html"
        loads = [load_page(page) for _ in range(ROUNDS + 1)][1:]  # without the warm-up
        megabytes = page.stat().st_size / 1e6
    painted, worked = zip(*loads, strict=True)
    median = statistics.median(painted)
    print(machine_line())
    table = Table("200 points", "measured")
    table.row("size of the page", f"{megabytes:.2f} MB", value=megabytes, at_most=MAX_MEGABYTES)
    table.row("painted after, median", f"{median:.2f} s", value=median, at_most=MAX_SECONDS)
    table.row("painted after, slowest", f"{max(painted):.2f} s")
    table.row("main thread of the page", f"{statistics.median(worked):.2f} s")
    table.row("nnopt report", f"{writing.seconds:.2f} s")
    return int(table.missed)


def write_sweep(run: Path, sweep: Path) -> None:
    """Write 200 variants of a run, and ``results.csv`` of their sweep."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["number", "id", "status", "error", "optimizer", "optimizer.lr", "seed"])
    points = itertools.product(OPTIMIZERS, RATES, SEEDS)
    for number, (optimizer, rate, seed) in enumerate(points, start=1):
        identity = f"spiral-numpy-mlp-{optimizer}-s{seed}-{number:010x}"
        write_point(run, sweep / identity, optimizer, rate, seed)
        writer.writerow([number, identity, "done", "", optimizer, rate, seed])
    (sweep / "results.csv").write_text(table.getvalue())


def write_point(run: Path, folder: Path, optimizer: str, rate: float, seed: int) -> None:
    """Copy a run, and change settings and curves. Plots are hard links to those of the run."""
    draw = random.Random(f"{optimizer} {rate} {seed}")
    shutil.copytree(run, folder, copy_function=os.link)
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text("utf-8"))
    summary["config"]["optimizer"] = {"name": optimizer, "lr": rate}
    summary["config"]["seed"] = summary["seed"] = seed
    summary["test_accuracy"] *= 1 - draw.random() / 10
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    shifted = [
        [*row[:3], *(repr(float(x) * (0.9 + draw.random() / 10)) for x in row[3:7]), *row[7:]]
        for row in rows
    ]
    config = (run / "config.yaml").read_text("utf-8").replace("lr: 0.1", f"lr: {rate}")
    lines = "".join(",".join(row) + "\n" for row in [header, *shifted])
    write_summary(folder, {key: value for key, value in summary.items() if key != FILES})
    for name, text in (("metrics.csv", lines), ("config.yaml", config)):
        (folder / name).unlink()
        (folder / name).write_text(text, "utf-8")


def load_page(page: Path) -> tuple[float, float]:
    """Load the page in a new browser.

    Returns:
        Seconds until it is painted, and the seconds that its main thread worked.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for option in (*CHROMIUM_OPTIONS.split(), f"user-data-dir={profile}"):
            options.add_argument(f"--{option}")
        browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        try:
            browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
            browser.get(page.as_uri())
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                painted = browser.execute_script("return document.documentElement.dataset.painted")
                if painted:
                    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
                    (work,) = [x["value"] for x in metrics if x["name"] == "TaskDuration"]
                    return float(painted) / 1000, float(work)
                time.sleep(0.05)
            raise RuntimeError(f"{page} was not painted in a minute")
        finally:
            browser.quit()


if __name__ == "__main__":
    sys.exit(main())
