"""Whole samples of a batch, chosen and put together."""

from __future__ import annotations

import itertools

import pytest
import torch

from fastsnn.attacks import rows


@pytest.mark.parametrize("axis", [0, 1])
def test_whole_samples_are_put_alike_whether_or_not_values_can_be_read(axis, monkeypatch):
    these, others = torch.rand(2, 3, 3, 2, 2)
    before = these.clone()
    for which in map(torch.tensor, itertools.product([False, True], repeat=3)):
        found = []
        for readable in (True, False):
            monkeypatch.setattr(rows, "read_at_once", lambda tensor, readable=readable: readable)
            found.append(others.clone())
            rows.put(which, these, found[-1], axis)
        assert torch.equal(*found)
        for i, one in enumerate(which.tolist()):
            assert torch.equal(found[0].select(axis, i), (these if one else others).select(axis, i))
    assert torch.equal(these, before)
