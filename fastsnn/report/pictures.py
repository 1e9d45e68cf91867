"""A wall of pictures, as in the paper's figure 1: original, perturbation and adversarial image, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..sweep import Cell, Ledger, Network, Settings, inputs, weights
from ..sweep.attacker import Attacker
from ..sweep.plan import DEFAULTS
from ..sweep.report import Row, attack_name, named, shared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COUNT = 8
_SAID = ("restarts", "alpha", "bn", "surrogate", "precision", "seed", "width", "T", "K", "epochs")
_NEAR = 6  # the paper's budget in 1/255


def wall(row: Row, ledger: Ledger) -> Figure:
    """Attack the first test images as the sweep did, and show what becomes of them.

    Args:
        row: of the ledger's results, phase-coded.
        ledger: says where the files of the data set and the network's weights were, and what became of the images.

    Raises:
        FileNotFoundError: the cache does not have the weights any more, or the images are gone; the message says which.
        ValueError: the images are damaged.
        CorruptWeightsError: the weights are.
    """
    from matplotlib.figure import Figure

    file = weights.path(ledger.description(row["network"]))
    state = weights.load(file)
    if state is None:
        raise FileNotFoundError(f"{file} is not there any more, so no picture could be attacked anew.")
    root = ledger.runs()[-1]["settings"].get("root")  # sweeps before it was a setting had no files
    settings, cell = _settings(row, root), _cell(row)
    attacker = Attacker(settings, _device(row))
    attacker.take(cell.network, state)
    count = min(_COUNT, row["images"])
    # where it determined the result, the batches are the sweep's
    batch = row["batch_size"] if isinstance(row["batch_size"], int) else 1
    x, adv, before, after = attacker.examples(cell, range(min(-(-count // batch) * batch, row["images"])))
    test_set = inputs.load(settings, row["data"], "test")
    originals, changed = decode(x, row["K"]), decode(adv, row["K"])
    change = changed - originals
    scale = 0.5 / max(change[:count].abs().max().item(), 1e-9)

    figure = Figure(figsize=(max(4.4, 1.1 * count), 3.9), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    shown = (("original", originals), (f"change x{scale:.0f}", 0.5 + scale * change), ("adversarial", changed))
    for line, (name, images) in zip(axes, shown, strict=True):
        for i, one in enumerate(line):
            one.imshow(images[i].clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
            one.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    for i in range(count):
        for one, found in ((axes[0][i], before[i]), (axes[2][i], after[i])):
            right = bool(found == test_set.labels[i])
            one.set_title(test_set.classes[found], fontsize="small", color="black" if right else "tab:red")
    right = (torch.stack([before, after], 1) == test_set.labels[: len(before), None])[:count]
    figure.suptitle(_said(row, right, ledger), fontsize="small")
    return figure


def _said(row: Row, right: torch.Tensor, ledger: Ledger) -> str:
    """Return the title: the attack, and how many images the ledger has otherwise; `right` is [B, 2], clean and not."""
    others = named(shared([row], _SAID))
    where = f"{row['model']} {row['pool']}, {attack_name(row)}, eps {row['eps_255']:g}/255 on the spikes"
    known = [bool(one) for _, *both, _, _ in ledger.samples(row["cell"])[: len(right)] for one in both]
    differ = (right != torch.tensor(known).view(-1, 2)).any(1).sum().item()
    title = f"{where}\n{others}\nTitles say what the network sees, red where it is wrong."
    return f"{title}\n{differ} of these {len(right)} came out otherwise in the sweep." if differ else title


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


def _settings(row: Row, root: str | None) -> Settings:
    """Return the settings with which an attacker does what the sweep did."""
    names = ("width", "T", "K", "images", "precision")
    chosen = {name: row[name] or DEFAULTS[name] for name in ("alpha", "batch_size")}
    return Settings(root=root, **{name: row[name] for name in names}, **chosen)


def _cell(row: Row) -> Cell:
    how = [row[name] for name in ("attack", "bn", "surrogate", "steps", "restarts", "eps_255")]
    return Cell(Network.of(row), *how)


def _device(row: Row) -> torch.device:
    """Return the GPU, if the row is from one of that name, else the CPU."""
    same = torch.cuda.is_available() and torch.cuda.get_device_name() == row["device"]
    return torch.device("cuda" if same else "cpu")
