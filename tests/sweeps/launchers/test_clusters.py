"""The launchers ray and submitit: results equal sequential results, and every process ends."""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import descendants, is_alive, training_points, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

Run = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]

# Four points, two of which diverge. One thread makes the bits of the results reproducible.
SWEEP = ["epochs=2", "dataset.samples_per_class=20", "plots=false", "backend.threads=1"]
SWEEP += ["optimizer.lr=0.1,1e20", "seed=0,1"]
VARYING = ("train_seconds", "total_seconds", "peak_memory_mb")


def table_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return [
            {key: cell for key, cell in row.items() if key not in VARYING}
            for row in csv.DictReader(file)
        ]


def assert_same_table_as_sequentially(sweep: subprocess.Popen[str], nnopt: Run) -> None:
    """Compare the table of a sweep with the table of a sequential sweep.

    Both sweeps fail, because some of the points diverge.
    """
    out, err = sweep.communicate(timeout=240)
    assert sweep.returncode == 5, err
    assert nnopt("run", "-m", *SWEEP, "hydra.sweep.dir=here") == 5
    rows = table_of(Path("elsewhere"))
    assert [row["status"] for row in rows] == ["done", "done", "diverged", "diverged"]
    assert rows == table_of(Path("here"))


# Replacements of the SLURM commands that submitit uses. A job starts at once, in the background.
COMMANDS = {
    "sbatch": """
        cp "$1" {folder}/$$.sh
        export SLURM_JOB_ID=$$ SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0
        export SLURM_PROCID=0 SLURM_LOCALID=0
        bash {folder}/$$.sh >{folder}/$$.out 2>&1 &
        echo "Submitted batch job $$"
        """,
    "srun": """
        while [ "${{1#--}}" != "$1" ]; do
          case $1 in --output | --error) shift ;; esac
          shift
        done
        exec "$@"
        """,
    "scontrol": "(sleep 1; bash {folder}/$2.sh >>{folder}/$2.out 2>&1) &",
    "sacct": "echo 'JobID|State|NodeList'",
}


class Cluster(NamedTuple):
    address: str
    process: int


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Start a Ray cluster on free ports of the loopback device, with a new token.

    The user's token in ~/.ray is not used.
    """
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_NUM_REDIS_GET_RETRIES", "100")  # about 100 s, for a slow start
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, agent_port = one.getsockname()[1], other.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # because paths of sockets must be short
    log = Path(folder, "output")
    arguments = ["--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"]
    arguments += ["--num-cpus=2", "--object-store-memory=100000000", "--include-dashboard=false"]
    arguments += ["--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder}"]
    arguments += [f"--dashboard-agent-listen-port={agent_port}", "--disable-usage-stats"]
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments]
    with log.open("w") as output:
        process = subprocess.Popen(start, stdout=output, stderr=output)
    try:
        wait_until(lambda: "Ray runtime started" in log.read_text() or process.poll(), 120)
        assert process.poll() is None, log.read_text()
        yield Cluster(f"127.0.0.1:{port}", process.pid)
    finally:
        left = {process.pid} | descendants(process.pid)
        process.terminate()
        try:
            wait_until(lambda: not any(map(is_alive, left)), 90)
        finally:
            for child in filter(is_alive, left):
                os.kill(child, signal.SIGKILL)
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
def test_table_of_ray_cluster_equals_table_of_sequential_launcher(
    start_nnopt: Start, nnopt: Run, cluster: Cluster
) -> None:
    overrides = ["hydra/launcher=ray", f"hydra.launcher.address={cluster.address}"]
    sweep = start_nnopt("run", "-m", *overrides, *SWEEP, "hydra.sweep.dir=elsewhere")
    assert_same_table_as_sequentially(sweep, nnopt)


@pytest.mark.slurm
def test_table_of_submitit_equals_table_of_sequential_launcher(
    start_nnopt: Start, nnopt: Run
) -> None:
    """At most two jobs run at once, and submitit's files are in the sweep's folder."""
    overrides = [
        "hydra/launcher=submitit",
        "hydra.launcher.cluster=local",
        "hydra.launcher.workers=2",
    ]
    sweep = start_nnopt("run", "-m", *overrides, *SWEEP, "hydra.sweep.dir=elsewhere")
    most, seen = 0, set[int]()
    while sweep.poll() is None:
        jobs = descendants(sweep.pid)
        seen |= jobs
        controllers = [x for x in jobs if "submitit.local._local" in command_line(x)]
        most = max(most, len(controllers))
        time.sleep(0.1)
    assert most == 2
    assert_same_table_as_sequentially(sweep, nnopt)
    assert not any(map(is_alive, seen))
    assert len(list(Path("elsewhere/submitit").glob("*/*_log.err"))) == 4


def command_line(process: int) -> str:
    """Return the command line of a process, or an empty text if the process has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put ``COMMANDS`` on the search path, and return the folder of the job scripts."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in COMMANDS.items():
        body = textwrap.dedent(script).format(folder=folder)
        (folder / name).write_text(f"#!/bin/bash\n{body}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.mark.slurm
def test_slurm_jobs_get_configured_resources(start_nnopt: Start, slurm: Path) -> None:
    settings = {"partition": "quick", "memory": 2, "threads": 1, "timeout": 90, "workers": 4}
    overrides = [f"hydra.launcher.{key}={value}" for key, value in settings.items()]
    overrides += ["hydra/launcher=submitit", "hydra.launcher.options={qos: high}"]
    overrides += ["hydra.launcher.options.constraint=a100"]
    sweep = start_nnopt("run", "-m", *overrides, *SWEEP[:-2], "hydra.sweep.dir=sweep")
    out, err = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, err
    assert [row["status"] for row in table_of(Path("sweep"))] == ["done"]
    (script,) = slurm.glob("*.sh")
    assert {
        "#SBATCH --partition=quick",
        "#SBATCH --mem=2GB",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --time=4",  # minutes: 90 s, and 150 s for the start and the signal
        "#SBATCH --signal=USR2@30",
        "#SBATCH --qos=high",
        "#SBATCH --constraint=a100",
        "export OMP_NUM_THREADS=1",
    } <= set(script.read_text().splitlines())


LONG = ["epochs=1000", "dataset.samples_per_class=20", "plots=false", "backend.threads=1"]
LONG += ["hydra.sweep.dir=sweep", "hydra/launcher=submitit"]

SIGTERM, SIGUSR2, SIGKILL = signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("cluster", "signals"),
    [
        ("local", [SIGUSR2]),
        ("slurm", [SIGUSR2]),
        ("slurm", [SIGTERM, SIGUSR2]),
        ("slurm", [SIGTERM, SIGKILL]),
    ],
)
def test_preempted_job_of_submitit_continues_and_gives_equal_bits(
    start_nnopt: Start,
    nnopt: Run,
    slurm: Path,
    workplace: Path,
    cluster: str,
    signals: list[signal.Signals],
) -> None:
    """submitit requeues the job after SIGUSR2. After SIGKILL, SLURM itself requeues it."""
    sweep = start_nnopt("run", "-m", *LONG, f"hydra.launcher.cluster={cluster}")
    wait_until(lambda: training_points(workplace / "sweep"))
    (folder,) = workplace.glob("sweep/spiral*")
    (log,) = [*workplace.glob("sweep/submitit/*/*_log.out"), *slurm.glob("*.out")]
    job = int(re.findall(r"job_id=(\d+)", log.read_text())[0])
    command = f"submitit.core._submit {workplace}"
    (process,) = [x for x in descendants(1) if command in command_line(x)]
    for number in signals:
        os.kill(process, number)
        wait_until((folder / "summary.json").exists)
    if signals[-1] == SIGKILL:
        environment = {**os.environ, "SLURM_JOB_ID": str(job), "SLURM_PROCID": "0"}
        subprocess.run([slurm / "scontrol", "requeue", str(job)], env=environment)
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 0, err
    assert json.loads((folder / "summary.json").read_text())["interruptions"] == 1
    assert ("Requeued job" in log.read_text()) is (signals[-1] == SIGUSR2)
    assert nnopt("run", "-m", *LONG[:-2], "hydra.sweep.dir=alone") == 0
    alone = workplace / "alone" / folder.name
    assert (folder / "model_best.npz").read_bytes() == (alone / "model_best.npz").read_bytes()


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("submitit hydra.launcher.cluster=local", marks=pytest.mark.slurm),
        pytest.param("ray hydra.launcher.address=null", marks=pytest.mark.ray),
    ],
)
def test_points_in_cluster_jobs_write_checkpoints_when_sweep_is_stopped(
    start_nnopt: Start, workplace: Path, launcher: str
) -> None:
    overrides = [*f"hydra/launcher={launcher}".split(), "hydra.sweep.dir=sweep"]
    sweep = start_nnopt("run", "-m", *overrides, "epochs=10000000", "plots=false", "seed=0,1")
    wait_until(lambda: len(training_points(workplace / "sweep")) == 2)
    jobs = descendants(sweep.pid)
    sweep.send_signal(signal.SIGTERM)
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 143, err
    assert "`nnopt resume sweep` runs the remaining points" in err
    assert len(list(workplace.glob("sweep/*/checkpoint_*.npz"))) == 2
    assert not any(map(is_alive, jobs))
    with (workplace / "sweep" / "results.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["interrupted"] * 2
