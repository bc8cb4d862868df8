"""Measure time and memory for loading a dataset as large as CINIC-10 from the cache.

    python benchmarks/data_start.py                    270,000 images, about five minutes
    python benchmarks/data_start.py --images 6000

The script writes a tree of PNG files to a temporary folder. A first process decodes them into the
cache. Five other processes load the data from the cache ("second start" in the table): their median
wall time must be at most 1 s. One more process also reads all images: its peak resident memory must
be at most 1.3 times the size of the images. A small tree has no target for
memory, because the interpreter needs more memory than the images. Exits with 1 if a target is
missed.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import Table, machine_line, run_command

MAX_START_SECONDS = 1.0
LARGEST_MEMORY_RATIO = 1.3
MIN_RAW_BYTES = 2 * 10**8
"""The memory has a target only if the images have at least this many bytes."""

DISTINCT_IMAGES = 500
ROWS_PER_READ = 1_000


def main() -> int:
    """Print the table; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=270_000, help="images in all three parts")
    parser.add_argument("--child", nargs=2, metavar=("ROOT", "load|read"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(load(Path(options.child[0]), read=options.child[1] == "read")))
        return 0
    print(machine_line())
    with tempfile.TemporaryDirectory(prefix="nnopt-data-start-") as folder:
        return measure(Path(folder), options.images)


def measure(root: Path, images: int) -> int:
    """Write a tree of images and print the table; return 1 if a target is missed."""
    started = time.perf_counter()
    count = write_tree(root / "CINIC-10", images)
    written = time.perf_counter() - started
    first, first_seconds = child(root, "load")
    starts = sorted((child(root, "load") for _ in range(5)), key=lambda result: result[1])
    start, start_seconds = starts[2]
    read, read_seconds = child(root, "read")
    raw = read["raw_bytes"]
    table = Table("", "measured", "load()", "memory")

    def row(label: str, seconds: float, result: dict[str, float], **target: float) -> None:
        load_seconds, memory = f"{result['seconds']:.3f} s", f"{result['peak_bytes'] / raw:.2f} x"
        table.row(label, f"{seconds:.3f} s", load_seconds, memory, **target)

    table.row(f"write {count:,} files", f"{written:.1f} s")
    row("first start: decode", first_seconds, first)
    target = {"value": start_seconds, "at_most": MAX_START_SECONDS}
    row("second start, median of 5", start_seconds, start, **target)
    target = {"at_most": LARGEST_MEMORY_RATIO} if raw >= MIN_RAW_BYTES else {}
    row(f"read {raw / 1e6:.0f} MB", read_seconds, read, value=read["peak_bytes"] / raw, **target)
    return int(table.missed)


def child(root: Path, action: str) -> tuple[dict[str, float], float]:
    """Return the results of ``load`` in a new process, and the seconds that the process took."""
    process = run_command(sys.executable, __file__, "--child", root, action)
    return json.loads(process.output.splitlines()[-1]), process.seconds


def load(root: Path, read: bool) -> dict[str, float]:
    """Load CINIC-10 as ``dataset=cinic10`` does; then read all images if ``read`` is true.

    Returns:
        Seconds to load, bytes of all images, peak memory of this process, and sum of read pixels.
    """
    from nnopt.data import load
    from nnopt.schema import DataConfig, ImageConfig, Validation

    imported = time.perf_counter()
    config = ImageConfig(
        name="cinic10",
        classes=None,
        subset=None,
        normalization="standard",
        validation=Validation("own", 0.1),
    )
    dataset = load(config, DataConfig(str(root), str(root / "cache"), False), seed=0)
    loaded = time.perf_counter()
    raw = total = 0
    for part in (dataset.train, dataset.validation, dataset.test):
        assert part is not None
        raw += len(part) * int(np.prod(dataset.input_shape))
        for start in range(0, len(part) if read else 0, ROWS_PER_READ):
            total += int(part.inputs[part.rows[start : start + ROWS_PER_READ]].sum(dtype=np.int64))
    return {
        "seconds": loaded - imported,
        "raw_bytes": raw,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "total": total,
    }


def write_tree(folder: Path, images: int) -> int:
    """Write the tree part/class/*.png with equally large classes; return the number of images."""
    from nnopt.data.published import CINIC10

    contents = [png(seed) for seed in range(DISTINCT_IMAGES)]
    each = images // (len(CINIC10.parts) * len(CINIC10.classes))
    written = 0
    for part in CINIC10.parts:
        for name in CINIC10.classes:
            (folder / part / name).mkdir(parents=True)
            for number in range(each):
                path = folder / part / name / f"{number:05d}.png"
                path.write_bytes(contents[written % DISTINCT_IMAGES])
                written += 1
    return written


def png(seed: int) -> bytes:
    """Return a PNG file of 32x32 pixels with about as many bytes as that of a photograph."""
    from PIL import Image

    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, 32), np.linspace(0, 1, 32))
    slopes = random.uniform(-90, 90, (2, 3))
    pixels = 128 + x[..., None] * slopes[0] + y[..., None] * slopes[1]
    pixels = pixels + random.normal(0, 8, pixels.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
