"""Compare the time of a sweep on MNIST with that of a shell loop over a PyTorch script.

    NNOPT_DATA_DIR=... python benchmarks/sweep_over_scripts.py [--loop 16] [--epochs 10]

Sweep and loop train a 784-128-64-10 net with 16 settings (4 learning rates, 4 strengths of L2) and
5 seeds, with the same number of epochs, batch size and optimizer:

    nnopt run -m hydra/launcher=pool dataset=mnist ... 'seed=range(5)'
    for ...; do python benchmarks/plain_mnist.py --lr ... --l2 ... --seed ...; done

The sweep uses NumPy and one worker per core, the script PyTorch with its default threads. Both
write metrics and weights but no plots. The loop runs ``--loop`` of its 80 trainings, spread over
all settings, half of them before the sweep and half after it; the time is scaled to 80 trainings.
Exits with 1 if the sweep takes more than 0.35 of the loop's time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from timing import Table, machine_line, read_summaries, run_command, run_nnopt

SCRIPT = Path(__file__).with_name("plain_mnist.py")
LARGEST_RATIO = 0.35

RATES = ("0.01", "0.02", "0.05", "0.1")
L2S = ("0", "1e-5", "1e-4", "1e-3")
SEEDS = range(5)
POINTS = list(itertools.product(RATES, L2S, SEEDS))


def main() -> int:
    """Print the times; return 1 if the target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", type=int, default=16, help="number of trainings of the loop")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    data = os.environ.get("NNOPT_DATA_DIR")
    if data is None:
        sys.exit("NNOPT_DATA_DIR must be the folder that contains MNIST/raw")
    data = os.path.abspath(data)
    chosen = POINTS[:: max(len(POINTS) // options.loop, 1)][: options.loop]
    half = len(chosen) // 2
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.chdir(root)
        decode()
        first = loop_seconds(chosen[:half], options.epochs, data, root)
        sweep = sweep_seconds(options.epochs)
        second = loop_seconds(chosen[half:], options.epochs, data, root)
        theirs = [json.loads(x.read_text()) for x in root.glob("loop/*/summary.json")]
        ours = read_summaries(root / "sweep").values()
    each = (first + second) / len(chosen)
    scaled = each * len(POINTS)
    print(f"{machine_line()}\n{len(POINTS)} trainings of {options.epochs} epochs")
    table = Table("", "time", "each", "ratio")
    measured = "all" if len(chosen) == len(POINTS) else f"scaled from {len(chosen)}"
    table.row(f"shell loop, {measured}", f"{scaled:.1f} s", f"{each:.2f} s")
    ratio = sweep / scaled
    cells = f"{sweep:.1f} s", f"{sweep / len(POINTS):.2f} s", f"{ratio:.2f}"
    table.row("sweep", *cells, value=ratio, at_most=LARGEST_RATIO)
    same = [x for x in ours if point_of(x) in {(float(a), float(b), c) for a, b, c in chosen}]
    accuracies = [statistics.mean(x["test_accuracy"] for x in runs) for runs in (theirs, same)]
    print("mean test accuracy of equal settings: loop {:.4f}, sweep {:.4f}".format(*accuracies))
    return int(table.missed)


def decode() -> None:
    """Let nnopt decode MNIST into its cache."""
    overrides = ["dataset=mnist", "max_steps=1", "epochs=1", "plots=false", "hydra.run.dir=first"]
    run_nnopt("run", *overrides)


def loop_seconds(points: list[tuple[str, str, int]], epochs: int, data: str, root: Path) -> float:
    """Return the seconds that a shell loop over points (learning rate, L2, seed) takes."""
    lines = []
    for lr, l2, seed in points:
        options = f"--lr {lr} --l2 {l2} --seed {seed} --epochs {epochs} --data {shlex.quote(data)}"
        out = shlex.quote(str(root / "loop" / f"{lr}-{l2}-{seed}"))
        lines.append(
            f"{shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))} {options} --out {out}"
        )
    return run_command("bash", "-ec", "\n".join(lines)).seconds


def sweep_seconds(epochs: int) -> float:
    """Return the wall time of the sweep's command in seconds."""
    overrides = ["dataset=mnist", "architecture.hidden=[128, 64]", "batch_size=64", "plots=false"]
    overrides += ["regularizer.grad_clip=0", "optimizer=momentum", "schedule=constant"]
    overrides += [f"epochs={epochs}", "hydra.sweep.dir=sweep"]
    overrides += [f"optimizer.lr={','.join(RATES)}", f"regularizer.l2={','.join(L2S)}"]
    overrides.append("seed=range(5)")
    return run_nnopt("run", "-m", "hydra/launcher=pool", *overrides).seconds


def point_of(summary: dict[str, Any]) -> tuple[float, float, int]:
    """Return learning rate, strength of L2 and seed of a run of the sweep."""
    config = summary["config"]
    return config["optimizer"]["lr"], config["regularizer"]["l2"], config["seed"]


if __name__ == "__main__":
    sys.exit(main())
