"""What a policy of augmentation costs a batch, and what torchvision's class costs image by image.

    NNOPT_DATA_DIR=... python benchmarks/torch_policies.py [--rounds 25] [--threads 2]

Batches of 128 of CIFAR-10, cropped and flipped, as nnopt's loader gives them without a policy and
with each, and as many images handed one by one to torchvision's class. They take turns; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch
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
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases: dict[str, Callable[[int], float]] = {}
    for policy in ("none", *CLASSES):
        config = (
            make_plan(
                [
                    "dataset=cifar10",
                    "backend=torch",
                    f"batch_size={BATCH}",
                    "regularizer.augmentation.crop=4",
                    "regularizer.augmentation.flip=true",
                    f"regularizer.augmentation.policy={policy}",
                ]
            )
            .points[0]
            .config
        )
        samples = data.load(config.dataset, config.data, config.seed)
        loader = load_backend("torch").build_loader(samples.train, samples.normalization, config)
        cases[policy] = batch_of_nnopt(config, samples, loader)
    images = torch.from_numpy(samples.train.inputs[samples.train.rows[:BATCH]])
    for policy, transform in CLASSES.items():
        cases[f"{policy}, image by image"] = image_by_image(images, transform)
    times = defaultdict(list)
    for turn in range(arguments.rounds + 3):  # the first three are not counted
        for name, seconds in cases.items():
            times[name].append(seconds(turn))
    print(f"{'ms a batch of ' + str(BATCH):<32} {'median':>8} {'min':>8}")
    for name, found in times.items():
        print(f"{name:<32} {1e3 * statistics.median(found[3:]):8.2f} {1e3 * min(found[3:]):8.2f}")


def batch_of_nnopt(config: Config, samples: Dataset, loader: Loader) -> Callable[[int], float]:
    """Seconds of a batch, those of the draws included, on average over ten."""
    count = BATCH * BATCHES

    def seconds(turn: int) -> float:
        order = epoch_order(0, turn, len(samples.train))[:count]
        start = time.perf_counter()
        augmentation = draw_augmentation(config, samples, turn, count)
        for _ in loader.train_batches(order, BATCH, augmentation):
            pass
        return (time.perf_counter() - start) / BATCHES

    return seconds


def image_by_image(
    images: torch.Tensor, transform: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[int], float]:
    def seconds(turn: int) -> float:
        torch.manual_seed(turn)
        start = time.perf_counter()
        for image in images:
            transform(image)
        return time.perf_counter() - start

    return seconds


if __name__ == "__main__":
    main()
