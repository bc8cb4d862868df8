"""How large the page of a sweep is, and how soon a browser shows it.

    python benchmarks/report.py

``nnopt report`` of 200 points, 40 settings of 5 seeds each, with their plots: the page stays under
5 MB, and a fresh headless Chromium has painted its tables and the chart under 2 s after it was
asked for the page (median of several). The points are one real run of 60 epochs, copied with other
keys and curves. Exits with 1 past a bar, with 2 where there is no Chromium.
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
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

NNOPT = Path(sysconfig.get_path("scripts")) / "nnopt"
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")

OPTIMIZERS = ("sgd", "momentum", "adam", "rmsprop")
RATES = tuple(float(f"{10 ** (-k / 2):.1g}") for k in range(10))
SEEDS = range(5)
OPENINGS = 5
PAGE_BAR, SECONDS_BAR = 5e6, 2.0


def main() -> int:
    """Print the table; 1 if a bar is passed."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        print(f"not measured: it needs {CHROMIUM} and {DRIVER}")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([NNOPT, "run", f"hydra.run.dir={folder / 'run'}"], check=True, stdout=-3)
        leave_sweep(folder / "run", folder / "sweep")
        started = time.perf_counter()
        subprocess.run([NNOPT, "report", folder / "sweep"], check=True, stdout=-3)
        writing = time.perf_counter() - started
        page = folder / "sweep" / "report.html"
        opened = [opening(page) for _ in range(OPENINGS + 1)][1:]  # the first reads Chromium itself
        size = page.stat().st_size
    waited, worked = ([x[place] for x in opened] for place in (0, 1))
    seconds = statistics.median(waited)
    rows = (
        ("size of the page", f"{size / 1e6:.2f} MB", f"{PAGE_BAR / 1e6:g} MB", size < PAGE_BAR),
        ("until painted, median", f"{seconds:.2f} s", f"{SECONDS_BAR:g} s", seconds < SECONDS_BAR),
        ("until painted, slowest", f"{max(waited):.2f} s", "", True),
        ("the page's processor time", f"{statistics.median(worked):.2f} s", "", True),
        ("nnopt report", f"{writing:.2f} s", "", True),
    )
    print(f"{'200 points':<26} {'':>8}  bar")
    for label, value, bar, holds in rows:
        verdict = ("ok" if holds else "MISSED") if bar else ""
        print(f"{label:<26} {value:>8}  {bar} {verdict}".rstrip())
    return int(not all(holds for _, _, _, holds in rows))


def leave_sweep(run: Path, sweep: Path) -> None:
    """200 points like the run, with a table like that of a sweep."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["number", "id", "status", "error", "optimizer", "optimizer.lr", "seed"])
    points = itertools.product(OPTIMIZERS, RATES, SEEDS)
    for number, (optimizer, rate, seed) in enumerate(points, start=1):
        identity = f"spiral-numpy-mlp-{optimizer}-s{seed}-{number:010x}"
        leave_point(run, sweep / identity, optimizer, rate, seed)
        writer.writerow([number, identity, "done", "", optimizer, rate, seed])
    (sweep / "results.csv").write_text(table.getvalue())


def leave_point(run: Path, folder: Path, optimizer: str, rate: float, seed: int) -> None:
    """A copy of the run under other keys, its curves moved a little; the plots are linked."""
    chance = random.Random(f"{optimizer} {rate} {seed}")
    shutil.copytree(run, folder, copy_function=os.link)
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text("utf-8"))
    summary["config"]["optimizer"] = {"name": optimizer, "lr": rate}
    summary["config"]["seed"] = summary["seed"] = seed
    summary["test_accuracy"] *= 1 - chance.random() / 10
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    moved = [
        [*row[:3], *(repr(float(x) * (0.9 + chance.random() / 10)) for x in row[3:7]), *row[7:]]
        for row in rows
    ]
    config = (run / "config.yaml").read_text("utf-8").replace("lr: 0.1", f"lr: {rate}")
    lines = "".join(",".join(row) + "\n" for row in [header, *moved])
    for name, text in (
        ("summary.json", json.dumps(summary)),
        ("metrics.csv", lines),
        ("config.yaml", config),
    ):
        (folder / name).unlink()
        (folder / name).write_text(text, "utf-8")


def opening(page: Path) -> tuple[float, float]:
    """Seconds from asking a new browser for the page until it has painted it, and how many of them
    its main thread worked: the machine may be busy with other things."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
            options.add_argument(f"--{word}")
        for word in ("no-first-run", "disable-background-networking", "disable-component-update"):
            options.add_argument(f"--{word}")
        options.add_argument(f"--user-data-dir={profile}")
        options.add_argument("--window-size=1400,1000")
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
