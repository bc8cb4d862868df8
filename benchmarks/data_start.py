"""How fast a second start is on data of CINIC-10's size, and how much memory the data take.

    python benchmarks/data_start.py                    270,000 images, about five minutes
    python benchmarks/data_start.py --images 6000

Writes a tree of PNG files (some hundred different images) to a temporary folder, decodes it into
the cache, then starts fresh processes that load it from there: some that only load, one that also
reads every row of every part. Exits with 1 if a bar is missed: the second start, the whole process
from start to end, takes less than 1 s; the peak of resident memory stays below 1.3 times the bytes
of the images in use. A small tree has no bar for memory: the interpreter outweighs its images.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

START_BAR = 1.0  # seconds
MEMORY_BAR = 1.3  # times the raw bytes
SMALLEST_RAW = 2 * 10**8  # bytes of images; with fewer, memory has no bar
DISTINCT = 500  # images that differ
ROWS = 1_000  # read at once


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=270_000, help="in all three parts together")
    parser.add_argument("--child", nargs=2, metavar=("ROOT", "load|read"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(load(Path(options.child[0]), read=options.child[1] == "read")))
        return 0
    with tempfile.TemporaryDirectory(prefix="nnopt-data-start-") as folder:
        return measure(Path(folder), options.images)


def measure(root: Path, images: int) -> int:
    began = time.perf_counter()
    count = write_tree(root / "CINIC-10", images)
    written = time.perf_counter() - began
    first, first_wall = child(root, "load")
    starts = sorted((child(root, "load") for _ in range(5)), key=lambda result: result[1])
    read, read_wall = child(root, "read")
    start, start_wall = starts[2]
    raw = read["raw_bytes"]
    ratio = read["peak_bytes"] / raw
    rows = [
        ("write the tree", f"{written:.1f} s", f"{count:,} files", ""),
        ("first start: decode", f"{first_wall:.1f} s", f"load() {first['seconds']:.1f} s", ""),
        ("  peak memory", f"{first['peak_bytes'] / raw:.2f} x raw", "", ""),
        (
            "second start (median of 5)",
            f"{start_wall:.3f} s",
            f"import {start['import_seconds']:.3f} s, load() {start['seconds']:.3f} s",
            f"< {START_BAR} s",
        ),
        ("  peak memory", f"{start['peak_bytes'] / raw:.2f} x raw", "", ""),
        ("read all rows", f"{read_wall:.2f} s", f"{raw / 1e6:.0f} MB raw", ""),
        (
            "  peak memory",
            f"{ratio:.2f} x raw",
            f"{read['peak_bytes'] / 1e6:.0f} MB",
            f"< {MEMORY_BAR}" if raw >= SMALLEST_RAW else "",
        ),
    ]
    print(f"{'':28}{'measured':>14}  {'bar':>6}  of which")
    for name, value, detail, bar in rows:
        print(f"{name:28}{value:>14}  {bar:>6}  {detail}")
    too_large = ratio >= MEMORY_BAR and raw >= SMALLEST_RAW
    return int(start_wall >= START_BAR or too_large)


def child(root: Path, what: str) -> tuple[dict[str, float], float]:
    """What a fresh process measured, and the seconds from its start to its end."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--child", str(root), what]
    result = subprocess.run(command, capture_output=True, check=True)
    return json.loads(result.stdout), time.perf_counter() - began


def load(root: Path, read: bool) -> dict[str, float]:
    """Load CINIC-10 as ``dataset=cinic10`` does, and read every image if asked to."""
    began = time.perf_counter()
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
        for start in range(0, len(part) if read else 0, ROWS):
            total += int(part.inputs[part.rows[start : start + ROWS]].sum(dtype=np.int64))
    return {
        "import_seconds": imported - began,
        "seconds": loaded - imported,
        "raw_bytes": raw,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "total": total,
    }


def write_tree(folder: Path, images: int) -> int:
    """Write part/class/*.png, as many in each class; returns how many in all."""
    from nnopt.data.published import CINIC10

    contents = [png(seed) for seed in range(DISTINCT)]
    each = images // (len(CINIC10.parts) * len(CINIC10.classes))
    written = 0
    for part in CINIC10.parts:
        for name in CINIC10.classes:
            (folder / part / name).mkdir(parents=True)
            for number in range(each):
                path = folder / part / name / f"{number:05d}.png"
                path.write_bytes(contents[written % DISTINCT])
                written += 1
    return written


def png(seed: int) -> bytes:
    """A 32x32 PNG of smooth colours and some noise, about as large as a photograph's."""
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
