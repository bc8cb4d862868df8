"""The status of a point that runs or was killed, in every command that reads its folder."""

from __future__ import annotations

import csv
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import wait_until

from nnopt.sweeps.manifest import read_sweep
from nnopt.sweeps.results_table import ResultsTable

Run = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]
Captured = pytest.CaptureFixture[str]

OVERRIDES = ["dataset.samples_per_class=20", "plots=false", "checkpoint.interval=0"]
OVERRIDES += ["hydra.sweep.dir=sweep"]


@pytest.mark.slow
def test_unfinished_point_is_running_or_interrupted_in_every_command(
    nnopt: Run, start_nnopt: Start, workplace: Path, capsys: Captured
) -> None:
    sweep = workplace / "sweep"
    process = start_nnopt(
        "run", "-m", *OVERRIDES, "epochs=2,10000000,3", f"hydra.sweep.dir={sweep}"
    )
    wait_until(lambda: list(sweep.glob("*/checkpoint_b.npz")))
    done, unfinished, _ = (point.id for point in read_sweep(sweep).points)
    for status, note in ("running", "still running"), ("interrupted", "interrupted"):
        assert nnopt("compare", "sweep") == 0
        out = capsys.readouterr().out
        assert "1 run, 1 setting" in out
        assert f"left out: 1 run {note}" in out
        assert nnopt("diff", f"sweep/{done}", f"sweep/{unfinished}") == 2
        assert f"{unfinished} is not the folder of a finished run" in capsys.readouterr().err
        assert nnopt("report", "sweep") == 0
        assert f'"status":"{status}"' in (sweep / "report.html").read_text()
        ResultsTable(read_sweep(sweep)).write()
        with (sweep / "results.csv").open() as file:
            assert [row["status"] for row in csv.DictReader(file)] == ["done", status, "pending"]
        process.kill()
        process.wait()
    (sweep / "report.html").unlink()
    process = start_nnopt("resume", "sweep")
    wait_until(lambda: "continued after step" in (sweep / unfinished / "run.log").read_text())
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    assert "to be run: 2\npoints that continue from a checkpoint: 1\n" in out
    assert err == (
        "nnopt: error: interrupted by SIGUSR1; `nnopt resume sweep` runs the remaining points\n"
    )
