"""What two processes do that torchrun starts: they train one network together, stop, go on, and compare what they have.

torchrun --nproc-per-node 2 -m tests.training.two_processes FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from torch import distributed, nn

from fastsnn import cli, data, models
from fastsnn.nn import IFNode, PhaseEncoder
from fastsnn.training import Trainer, defence_of, neurons_for
from fastsnn.training.ranks import of_torchrun

DEFENCES = ("none", "mixed_rat", "hire:learned=1", "sparse_gradient")
# 40 images in batches of 16: the last is filled up
FLAGS = ["--data", "few", "--width", "4", "--T", "3", "--seed", "7", "--quiet", "--device", "cpu", "--images", "4"]


class Plain(nn.Module):
    """Spiking layers without a norm, so that an average of gradients is all that processes have in common."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.neurons, self.last = nn.Linear(3 * 32 * 32, 6), IFNode(), nn.Linear(6, 10)

    def forward(self, x_seq):
        return self.last(self.neurons(self.first(x_seq.flatten(2)))).mean(0)


def few(split):
    """Return 40 images of noise: scikit-learn would take longer to load than they to learn."""
    images = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return data.Dataset(images, torch.arange(40) % 10, tuple("0123456789"), "few", split)


def trained(net, some, ranks=None, **how):
    how = {"epochs": 1, "batch_size": 20, "seed": 1, "encode": PhaseEncoder(3)} | how
    trainer = Trainer(net, some.images, some.labels, **how, ranks=ranks)
    loss = trainer.epoch()
    return [parameter.detach() for parameter in net.parameters()], loss


def gathered(ranks, tensors):
    found = [None] * ranks.size
    distributed.all_gather_object(found, tensors)
    return found


def main(folder):
    """Write what was found to FOLDER/<rank>.json."""
    data.DATASETS["few"] = few
    with of_torchrun("cpu") as (ranks, _):
        found = compared(ranks, folder)
    (folder / f"{ranks.rank}.json").write_text(json.dumps(found))


def compared(ranks, folder):
    codes = [cli.main(["train", *FLAGS, "--epochs", "2", "--out", str(folder / "whole")])]
    codes += [cli.main(["train", *FLAGS, "--epochs", epochs, "--out", str(folder / "half")]) for epochs in "12"]
    codes.append(cli.main(["train", *FLAGS, "--train-batch-size", "15", "--out", str(folder / "refused")]))
    codes.append(cli.main(["sweep", "--out", str(folder / "refused")]))
    some, found = few("train"), {"codes": codes}
    together, alone = trained(Plain(), some, ranks, flips=True), trained(Plain(), some, flips=True)
    apart = zip(together[0], alone[0], strict=True)
    found["from one process"] = max(float((a - b).abs().max() / b.abs().max()) for a, b in apart)
    found["losses"] = together[1], alone[1]
    for name in DEFENCES:
        torch.manual_seed(ranks.rank)  # whose weights all take is the first's
        net, ten = neurons_for(models.wrn16_4(width=1), name), some.first(10)
        mine, _ = trained(net, ten, ranks, batch_size=4, defence=defence_of("defence", name))
        theirs = gathered(ranks, mine)
        found[name] = all(torch.equal(a, b) for a, b in zip(*theirs, strict=True))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
