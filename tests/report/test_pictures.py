import pytest
import torch

from fastsnn import data
from fastsnn.functional import phase_encode
from fastsnn.report import pictures
from fastsnn.report.pictures import decode, row_to_show
from fastsnn.sweep import Ledger, Settings, sweep, weights
from fastsnn.sweep.attacker import Attacker
from fastsnn.sweep.progress import Silent

from ..sweep import tiny
from ..sweep.test_report import rows

CHANGES = {
    "surrogate": {"surrogates": ("rectangle:0.5",)},
    "fast": {"precision": "fast"},
    "reference": {"precision": "reference"},
    "few images": {"images": 5, "restarts": (2,)},
}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setitem(data.DATASETS, "few", tiny.load)
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))


def swept(folder, **changes):
    chosen = {"pools": ("max",), "eps": (16,), "T": 8, "epochs": 2, **changes}
    list(sweep(Settings(**(tiny.SETTINGS | chosen)), folder, Silent()))
    return Ledger.read(folder)


@pytest.mark.parametrize("change", CHANGES)
def test_the_pictures_are_the_sweeps_own_images(tmp_path, monkeypatch, change):
    """Right and wrong as in the ledger, and changed by as much, to the last bit."""
    crafted, examples = [], Attacker.examples
    monkeypatch.setattr(Attacker, "examples", lambda *given: crafted.append(examples(*given)) or crafted[-1])
    with swept(tmp_path / "out", **CHANGES[change]) as ledger:
        row = row_to_show(ledger.results())
        figure, samples = pictures.wall(row, ledger), ledger.samples(row["cell"])[:8]
    assert row["attack"] == "pgd"
    ((x, adv, _, _),) = crafted
    count = len(samples)
    assert count == (5 if change == "few images" else 8)
    assert (adv - x).abs().amax((0, 2, 3, 4))[:count].tolist() == [linf for *_, linf in samples]
    right = [axes.title.get_color() == "black" for axes in figure.axes]
    assert right[:count] == [bool(line[1]) for line in samples]
    assert right[-count:] == [bool(line[2]) for line in samples]
    assert "otherwise" not in figure._suptitle.get_text()


def test_pictures_that_come_out_otherwise_say_so(tmp_path, monkeypatch):
    with swept(tmp_path / "out") as ledger:
        row, samples = row_to_show(ledger.results()), ledger.samples
        flipped = lambda cell: [(i, c, 1 - right, *rest) for i, c, right, *rest in samples(cell)]  # noqa: E731
        monkeypatch.setattr(ledger, "samples", flipped)
        title = pictures.wall(row, ledger)._suptitle.get_text()
    assert "8 of these 8 came out otherwise in the sweep" in title


def test_the_title_names_the_settings(tmp_path):
    with swept(tmp_path / "out", surrogates=("sigmoid:4",), restarts=(2,)) as ledger:
        title = pictures.wall(row_to_show(ledger.results()), ledger)._suptitle.get_text()
    for part in ("sew_resnet18 max, PGD-2, eps 16/255", "restarts 2", "surrogate sigmoid:4", "width 4", "seed 3407"):
        assert part in title


def test_weights_that_are_gone_are_named(tmp_path):
    with swept(tmp_path / "out") as ledger:
        row = row_to_show(ledger.results())
        file = weights.path(ledger.description(row["network"]))
        file.unlink()
        with pytest.raises(FileNotFoundError, match=f"{file} is not there any more"):
            pictures.wall(row, ledger)


def test_a_decoded_picture_is_the_image_up_to_the_code():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.allclose(decode(phase_encode(images, 10, 8), 8), images / 255, atol=1e-6)
    assert (decode(phase_encode(images, 4, 8), 8) - images / 255).abs().max() < 0.07, "four of eight bits"


def test_what_is_shown_is_pgd_near_the_papers_budget():
    shown = row_to_show(rows(eps=(0, 4, 16)))
    assert (shown["attack"], shown["eps_255"]) == ("pgd", 4)
    assert row_to_show(rows(eps=(0,))) is None
