"""FGSM, PGD and APGD on SEW-ResNet18 max, batch 16, T = 10, 32x32: ours against torchattacks calling the same network.

Both attack the same Classifier, phase-coded with straight-through gradients, as a user of either would call it:
images in, adversarial images out.
"""

from __future__ import annotations

import pytest
import torch

import fastsnn

from .pairs import pair

BATCH, EPS = 16, 6 / 255
torchattacks = pytest.importorskip(
    "torchattacks", reason="torchattacks is not installed: pip install --no-deps torchattacks requests tqdm"
)


def _classifier(batch, T):
    """Return a Classifier whose running statistics are settled, with images and the classes that it gives them."""
    net, _, _, _ = pair(18, "max", batch, T)
    clf = fastsnn.Classifier(net, fastsnn.nn.PhaseEncoder(T=T)).eval()
    images = torch.randint(0, 256, (batch, 3, 32, 32), generator=torch.Generator().manual_seed(1)) / 255
    with torch.no_grad():
        return clf, images, clf(images).argmax(1)


def _in_the_ball(images):
    def check(ours, theirs):
        for adv in (ours, theirs):
            assert (adv - images).abs().max() <= EPS + 1e-6 and not torch.equal(adv, images)

    return check


def _first_step_is_equal(clf, images, y):
    """Expect one step of PGD to be the same in all but two samples: sums in another order may turn a spike over."""
    how = {"eps": EPS, "alpha": EPS / 3, "steps": 1, "random_start": False}
    ours, theirs = (library.PGD(clf, **how)(images, y) for library in (fastsnn.attacks, torchattacks))
    equal = torch.isclose(ours, theirs, rtol=0, atol=1e-7).float().mean((1, 2, 3))
    assert (equal < 0.999).sum() <= 2, f"{(equal < 0.999).sum()} of {len(y)} samples differ"


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("FGSM", {}),
        ("PGD", {"alpha": 0.01, "steps": 7, "random_start": False}),
        ("APGD", {"steps": 7}),
    ],
    ids=["fgsm", "pgd7", "apgd7"],
)
def test_ours_vs_torchattacks(compare, smoke, name, how):
    clf, images, y = _classifier(8, T=3) if smoke else _classifier(BATCH, T=10)
    _first_step_is_equal(clf, images, y)
    ours, theirs = (getattr(library, name)(clf, eps=EPS, **how) for library in (fastsnn.attacks, torchattacks))
    options = {"rounds": 3, "note": lambda seconds: f"{len(y) / seconds:.1f} images/s"}
    compare(lambda: ours(images, y), lambda: theirs(images, y), _in_the_ball(images), **options)
