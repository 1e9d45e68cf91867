"""Conformance with attack libraries; a test skips, with the reason, where its library is not installed.

The extra "conformance" brings all but torchattacks, which asks for an old requests:
`pip install --no-deps torchattacks tqdm`.
"""

from __future__ import annotations

import importlib

import pytest
import torch

from ..attacks.networks import plain, tiny


def library(name: str):
    """Return a module, or skip the test."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"needs {name}, which cannot be imported here: {error}")


@pytest.fixture(params=["plain", "tiny"])
def network(request):
    """A network of torch's own, then our Classifier, each with images, right labels and a number of classes."""
    return plain(size=16).requires_grad_(False) if request.param == "plain" else tiny().requires_grad_(False)


@pytest.fixture
def images():
    return torch.rand(8, 3, 16, 16)


@pytest.fixture
def y(network, images):
    with torch.no_grad():
        return network(images).argmax(1)
