"""Whole samples of a batch, chosen and put together."""

from __future__ import annotations

import itertools

import pytest
import torch

from fastsnn.attacks import rows


@pytest.mark.parametrize("axis", [0, 1])
def test_whole_samples_are_chosen_alike_whether_or_not_values_can_be_read(axis, monkeypatch):
    these, others = torch.rand(2, 3, 3, 2, 2)
    before = these.clone(), others.clone()
    for which in map(torch.tensor, itertools.product([False, True], repeat=3)):
        monkeypatch.setattr(rows, "_read_at_once", lambda tensor: True)
        by_samples = rows.chosen(which, these, others, axis)
        monkeypatch.setattr(rows, "_read_at_once", lambda tensor: False)
        assert torch.equal(by_samples, rows.chosen(which, these, others, axis))
        for i, one in enumerate(which.tolist()):
            assert torch.equal(by_samples.select(axis, i), (these if one else others).select(axis, i))
    assert torch.equal(these, before[0]) and torch.equal(others, before[1])
