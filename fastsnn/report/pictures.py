"""A wall of pictures, as in the paper's figure 1: original, perturbation and adversarial image, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .. import data, models
from ..functional import phase_encode
from ..sweep import by_name, weights
from ..sweep.report import Row, attack_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COUNT = 8
_NEAR = 6  # the paper's budget in 1/255


def wall(row: Row, description: dict, root: str | None) -> Figure:
    """Attack the first test images as a row of the results says, and show what becomes of them.

    Args:
        row: of the view `results`.
        description: its network's, by which the cache has the weights.
        root: the folder that has the files of the data set, see data.load.

    Raises:
        FileNotFoundError: the cache does not have them any more, or the images are gone; the message says which.
        ValueError: the images are damaged.
    """
    from matplotlib.figure import Figure

    file = weights.path(description)
    state = weights.load(file)
    if state is None:
        raise FileNotFoundError(f"{file} is not there any more, so no picture could be attacked anew.")
    test_set = data.load(row["data"], "test", root)
    net = models.BUILDERS[row["model"]](pool=row["pool"], num_classes=test_set.num_classes, width=row["width"])
    net.load_state_dict(state)
    images, y = test_set.images[:_COUNT], test_set.labels[:_COUNT]
    x = phase_encode(images, row["T"], row["K"])
    adv = _attack(row, net.eval(), x, y)
    with torch.no_grad():
        before, after = net(x).argmax(1), net(adv).argmax(1)
    originals, changed = decode(x, row["K"]), decode(adv, row["K"])
    change = changed - originals
    scale = 0.5 / max(change.abs().max().item(), 1e-9)

    figure = Figure(figsize=(1.1 * _COUNT, 3.9), layout="constrained")
    axes = figure.subplots(3, _COUNT, squeeze=False)
    shown = (("original", originals), (f"change x{scale:.0f}", 0.5 + scale * change), ("adversarial", changed))
    for line, (name, pictures) in zip(axes, shown, strict=True):
        for i, one in enumerate(line):
            one.imshow(pictures[i].clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
            one.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    for i in range(_COUNT):
        for one, found in ((axes[0][i], before[i]), (axes[2][i], after[i])):
            right = bool(found == y[i])
            one.set_title(test_set.classes[found], fontsize="small", color="black" if right else "tab:red")
    where = f"{row['model']} {row['pool']}, {attack_name(row)}, eps {row['eps_255']:g}/255 on the spikes"
    figure.suptitle(f"{where}; titles say what the network sees, red where it is wrong", fontsize="small")
    return figure


def row_to_show(rows: Sequence[Row]) -> Row | None:
    """Return the row whose attack is shown: PGD where there is one, at the budget nearest the paper's.

    Of phase-coded images, which can be decoded.
    """
    attacked = [row for row in rows if row["eps_255"] > 0 and row["bn"] == "frozen" and row["coding"] == "phase"]

    def how_far(row: Row) -> tuple:
        return row["attack"] != "pgd", abs(row["eps_255"] - _NEAR), row["surrogate"] != "atan:2"

    return min(attacked, key=how_far, default=None)


def decode(x: torch.Tensor, K: int) -> torch.Tensor:
    """Return the images [B, C, H, W] in [0, 1] that the first K steps of a phase code [T, B, C, H, W] stand for."""
    first = x[:K].float()
    weight = 0.5 ** torch.arange(1, len(first) + 1, device=x.device)
    return torch.einsum("t,tbchw->bchw", weight, first) / weight.sum()


def _attack(row: Row, net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    eps = row["eps_255"] / 255
    generator = torch.Generator().manual_seed(row["seed"])
    how = {"alpha": row["alpha"], "steps": row["steps"], "restarts": row["restarts"], "generator": generator}
    return by_name.craft(row["attack"], net, x, y, how, eps=eps, surrogate=row["surrogate"])
