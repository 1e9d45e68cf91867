"""A sweep small enough for a test: 40 training and 12 test digits, four planes, four steps."""

from __future__ import annotations

from dataclasses import replace

from fastsnn import data

SETTINGS = {
    "data": ("few",),
    "width": 4,
    "T": 4,
    "epochs": 1,
    "eps": (0, 4, 16),
    "steps": (2,),
    "batch_size": 5,
    "train_batch_size": 20,
}
FLAGS = [
    *("--data", "few", "--width", "4", "--T", "4", "--epochs", "1", "--train-batch-size", "20"),
    *("--eps", "0,4,16", "--steps", "2", "--batch-size", "5"),
]


def load(split: str) -> data.Dataset:
    """Return the first digits of a split."""
    whole, count = data.load("digits", split), 40 if split == "train" else 12
    return replace(whole, images=whole.images[:count], labels=whole.labels[:count], name="few")
