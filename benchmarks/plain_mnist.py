"""Train a 784-128-64-10 net on MNIST in plain PyTorch, without nnopt.

    python benchmarks/plain_mnist.py --lr 0.1 --l2 1e-4 --seed 0 --epochs 10 --data DIR --out DIR

``sweep_over_scripts.py`` runs this script in a loop. The dataset is one tensor in memory, without a
DataLoader. Like ``nnopt run``, the script validates after every epoch, tests the best weights once,
and writes metrics, weights and a summary.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.datasets import MNIST


def main() -> None:
    """Train and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--l2", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--data", default="data")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    x, y = load(args.data, train=True)
    test = load(args.data, train=False)
    order = torch.randperm(len(x))
    held_out = len(x) // 10
    validation = x[order[:held_out]], y[order[:held_out]]
    x, y = x[order[held_out:]], y[order[held_out:]]

    net = nn.Sequential(
        nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": args.l2}, {"params": biases}],
        lr=args.lr,
        momentum=0.9,
    )
    rows, best, best_weights = [], -1.0, net.state_dict()
    for epoch in range(1, args.epochs + 1):
        net.train()
        total = torch.zeros(())
        for rows_of_batch in torch.randperm(len(x)).split(args.batch_size):
            loss = F.cross_entropy(net(x[rows_of_batch]), y[rows_of_batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows_of_batch)
        validation_loss, accuracy = evaluate(net, *validation)
        rows.append([epoch, total.item() / len(x), validation_loss, accuracy])
        if accuracy > best:
            best, best_weights = accuracy, copy.deepcopy(net.state_dict())

    args.out.mkdir(parents=True)
    torch.save(net.state_dict(), args.out / "model_last.pt")
    torch.save(best_weights, args.out / "model_best.pt")
    net.load_state_dict(best_weights)
    test_loss, test_accuracy = evaluate(net, *test)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "train_loss", "validation_loss", "validation_accuracy"])
        writer.writerows(rows)
    summary = {"test_loss": test_loss, "test_accuracy": test_accuracy}
    (args.out / "summary.json").write_text(json.dumps(summary))


def load(root: str, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalized images (N, 784) and labels (N,)."""
    data = MNIST(root, train=train)
    images = data.data.float().div_(255).sub_(0.1307).div_(0.3081)
    return images.flatten(1), data.targets


@torch.no_grad()
def evaluate(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    net.eval()
    logits = net(x)
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


if __name__ == "__main__":
    main()
