"""A network that attacks may change, and have recorded."""

from __future__ import annotations

import copy

import pytest

from .networks import settled


@pytest.fixture(scope="module")
def shared():
    return settled()


@pytest.fixture
def net(shared):
    return copy.deepcopy(shared)
