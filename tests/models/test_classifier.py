from __future__ import annotations

import pytest
import torch

import fastsnn


@pytest.fixture
def clf():
    torch.manual_seed(0)
    return fastsnn.Classifier(fastsnn.models.sew_resnet18(width=8), fastsnn.nn.PhaseEncoder(T=4, K=8)).eval()


@pytest.fixture
def images():
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_images_in_logits_out(clf, images):
    assert clf(images).shape == (4, 10)
    assert clf.encode(images).shape == (4, 4, 3, 32, 32)
    assert torch.equal(clf(images), clf.net(clf.encode(images)))


def test_an_image_sees_the_sum_of_the_steps_gradients(clf, images):
    images = images.clone().requires_grad_()
    clf(images).sum().backward()
    encoded = clf.encode(images.detach()).requires_grad_()
    clf.net(encoded).sum().backward()
    torch.testing.assert_close(images.grad, encoded.grad.sum(0))


def test_uint8_images_are_encoded_without_a_gradient(clf):
    assert clf(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)).shape == (2, 10)


def test_torchattacks_call_works_and_agrees(clf, images):
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed (it pins an old requests)")
    y = torch.arange(4)
    for parameter in clf.parameters():  # so that both sides compute the same sums
        parameter.requires_grad_(False)
    theirs = torchattacks.PGD(clf, eps=8 / 255, alpha=2 / 255, steps=3, random_start=False)(images, y)
    ours = fastsnn.attacks.PGD(clf, eps=8 / 255, alpha=2 / 255, steps=3, random_start=False)(images, y)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_autoattacks_shape_of_call_works(clf, images):
    """AutoAttack calls model(x), asks for logits, and differentiates them with respect to x."""
    x = images.clone().requires_grad_()
    logits = clf(x)
    (gradient,) = torch.autograd.grad(logits.gather(1, logits.argsort(1)[:, -1:]).sum(), x)
    assert logits.shape == (4, 10) and gradient.shape == x.shape and gradient.abs().max() > 0
