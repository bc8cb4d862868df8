"""Write Fashion-MNIST as two CSV files, in the format in which Kaggle distributes it.

    NNOPT_DATA_DIR=... python benchmarks/fashion_mnist_csv.py FOLDER

The files are fashion-mnist_train.csv and fashion-mnist_test.csv, with the columns label, pixel1 to
pixel784. The study six_regularizers_fashion_mnist reads them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from nnopt.data.idx import parse_idx

COLUMNS = ["label", *(f"pixel{number}" for number in range(1, 785))]


def main() -> int:
    """Write both files; return 0."""
    source = Path(os.environ["NNOPT_DATA_DIR"]) / "FashionMNIST" / "raw"
    folder = Path(sys.argv[1])
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = (
            parse_idx(file.read_bytes(), dimensions, file)
            for dimensions in (3, 1)
            for file in source.glob(f"{prefix}-*-idx{dimensions}-ubyte")
        )
        rows = np.column_stack([labels, images.reshape(len(images), -1)])
        path = folder / f"fashion-mnist_{part}.csv"
        np.savetxt(path, rows, "%d", ",", header=",".join(COLUMNS), comments="")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
