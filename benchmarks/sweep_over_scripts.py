"""A sweep of MNIST nets over a shell loop of plain PyTorch scripts: seconds over seconds.

    NNOPT_DATA_DIR=... python benchmarks/sweep_over_scripts.py [--loop 16] [--epochs 10]

16 settings (4 learning rates, 4 strengths of L2) times 5 seeds of a 784-128-64-10 net, trained for
the same epochs with the same batch size and optimizer:

    nnopt run -m hydra/launcher=pool dataset=mnist ... 'seed=range(5)'
    for ...; do python benchmarks/plain_mnist.py --lr ... --l2 ... --seed ...; done

The first with NumPy, one worker a core; the second with PyTorch's own threads, as it comes. Both
leave metrics and weights, neither draws plots. The sweep is run whole. Of the loop, ``--loop`` of
its 80 runs are done, spread over the settings, half of them before the sweep and half after it, and
their time is scaled up to 80: the output says so; ``--loop 80`` runs all. Exits with 1 if the sweep
takes more than 0.35 of the loop's time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

NNOPT = Path(sysconfig.get_path("scripts")) / "nnopt"
SCRIPT = Path(__file__).with_name("plain_mnist.py")
BAR = 0.35

RATES = ("0.01", "0.02", "0.05", "0.1")
L2S = ("0", "1e-5", "1e-4", "1e-3")
SEEDS = range(5)
POINTS = list(itertools.product(RATES, L2S, SEEDS))


def main() -> int:
    """Print the times; 1 past the bar."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", type=int, default=16, help="runs of the loop that are done")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    data = os.environ.get("NNOPT_DATA_DIR")
    if data is None:
        sys.exit("NNOPT_DATA_DIR has to name the folder that holds MNIST/raw")
    data = os.path.abspath(data)
    chosen = POINTS[:: max(len(POINTS) // options.loop, 1)][: options.loop]
    half = len(chosen) // 2
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.chdir(place)
        decode()
        first = loop(chosen[:half], options.epochs, data, place)
        sweep = sweep_seconds(options.epochs)
        second = loop(chosen[half:], options.epochs, data, place)
        theirs = [json.loads(x.read_text()) for x in place.glob("loop/*/summary.json")]
        ours = [json.loads(x.read_text()) for x in place.glob("sweep/*/summary.json")]
    each = (first + second) / len(chosen)
    scaled = each * len(POINTS)
    how = "all run" if len(chosen) == len(POINTS) else f"{len(chosen)} run, scaled up"
    print(f"{len(POINTS)} trainings of {options.epochs} epochs, {os.cpu_count()} cores")
    print(f"shell loop of scripts  {scaled:7.1f} s  {each:5.2f} s each, {how}")
    print(f"sweep                  {sweep:7.1f} s  {sweep / len(POINTS):5.2f} s each")
    same = [x for x in ours if point_of(x) in {(float(a), float(b), c) for a, b, c in chosen}]
    accuracies = [statistics.mean(x["test_accuracy"] for x in runs) for runs in (theirs, same)]
    print("mean test accuracy of the same settings: {:.4f} and {:.4f}".format(*accuracies))
    ratio = sweep / scaled
    print(f"ratio {ratio:.2f}; bar {BAR} {'ok' if ratio <= BAR else 'MISSED'}")
    return int(ratio > BAR)


def decode() -> None:
    """Let nnopt make its cache of MNIST, which it does once in a dataset's life."""
    words = ["dataset=mnist", "max_steps=1", "epochs=1", "plots=false", "hydra.run.dir=first"]
    subprocess.run([NNOPT, "run", *words], check=True, stdout=subprocess.DEVNULL)


def loop(points: list[tuple[str, str, int]], epochs: int, data: str, place: Path) -> float:
    """Seconds of a shell's loop over these points."""
    lines = []
    for lr, l2, seed in points:
        words = f"--lr {lr} --l2 {l2} --seed {seed} --epochs {epochs} --data {shlex.quote(data)}"
        out = shlex.quote(str(place / "loop" / f"{lr}-{l2}-{seed}"))
        lines.append(
            f"{shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))} {words} --out {out}"
        )
    started = time.perf_counter()
    subprocess.run(["bash", "-ec", "\n".join(lines)], check=True)
    return time.perf_counter() - started


def sweep_seconds(epochs: int) -> float:
    """Seconds of the sweep, as a command."""
    words = ["dataset=mnist", "architecture.hidden=[128, 64]", "batch_size=64", "plots=false"]
    words += ["regularizer.grad_clip=0"]
    words += [
        "optimizer=momentum",
        "schedule=constant",
        f"epochs={epochs}",
        "hydra.sweep.dir=sweep",
    ]
    words += [f"optimizer.lr={','.join(RATES)}", f"regularizer.l2={','.join(L2S)}", "seed=range(5)"]
    command = [NNOPT, "run", "-m", "hydra/launcher=pool", *words]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def point_of(summary: dict[str, Any]) -> tuple[float, float, int]:
    """Learning rate, strength of L2 and seed of a point of the sweep."""
    config = summary["config"]
    return config["optimizer"]["lr"], config["regularizer"]["l2"], config["seed"]


if __name__ == "__main__":
    sys.exit(main())
