"""Compare the time of nnopt's augmentation policies with that of torchvision's classes.

    NNOPT_DATA_DIR=... python benchmarks/torch_policies.py [--rounds 25] [--threads 2]

nnopt's loader crops and flips batches of 128 images of CIFAR-10, without a policy and with each
policy. torchvision's class for each policy processes 128 images one by one, without crop and flip.
All cases take turns. The script prints the median and the minimum time of a batch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import count

import torch
from timing import Table, alternate, machine_line
from torchvision.transforms import v2

from nnopt import data
from nnopt.backends import load_backend
from nnopt.backends.protocol import Loader
from nnopt.config.compose import make_plan
from nnopt.data.batches import draw_augmentation, epoch_order
from nnopt.data.dataset import Dataset
from nnopt.schema import Config

BATCH, BATCHES = 128, 10
CLASSES = {"rand_augment": v2.RandAugment(), "trivial_augment": v2.TrivialAugmentWide()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine_line()}; {options.threads} threads")
    cases: dict[str, Callable[[], float]] = {}
    for policy in ("none", *CLASSES):
        overrides = ["dataset=cifar10", "backend=torch", f"batch_size={BATCH}"]
        overrides += ["regularizer.augmentation.crop=4", "regularizer.augmentation.flip=true"]
        overrides.append(f"regularizer.augmentation.policy={policy}")
        config = make_plan(overrides).points[0].config
        samples = data.load(config.dataset, config.data, config.seed)
        loader = load_backend("torch").build_loader(samples.train, samples.normalization, config)
        cases[policy] = batch_of_nnopt(config, samples, loader)
    images = torch.from_numpy(samples.train.inputs[samples.train.rows[:BATCH]])
    for policy, transform in CLASSES.items():
        cases[f"{policy}, image by image"] = image_by_image(images, transform)
    table = Table(f"ms per batch of {BATCH}", "median", "min", label_width=32, target="")
    for name, seconds in alternate(cases, options.rounds, warmup=3).items():
        table.row(name, f"{1e3 * statistics.median(seconds):.2f}", f"{1e3 * min(seconds):.2f}")


def batch_of_nnopt(config: Config, samples: Dataset, loader: Loader) -> Callable[[], float]:
    """Return a function that measures the mean seconds of a batch, including its random draws."""
    size, turns = BATCH * BATCHES, count()

    def seconds() -> float:
        turn = next(turns)
        order = epoch_order(0, turn, len(samples.train))[:size]
        started = time.perf_counter()
        augmentation = draw_augmentation(config, samples, turn, size)
        for _ in loader.train_batches(order, BATCH, augmentation):
            pass
        return (time.perf_counter() - started) / BATCHES

    return seconds


def image_by_image(
    images: torch.Tensor, transform: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[], float]:
    """Return a function that measures the seconds to transform all images one by one."""
    turns = count()

    def seconds() -> float:
        torch.manual_seed(next(turns))
        started = time.perf_counter()
        for image in images:
            transform(image)
        return time.perf_counter() - started

    return seconds


if __name__ == "__main__":
    main()
