import os

import pytest
import safetensors
import torch

from fastsnn import models
from fastsnn.sweep import weights

DESCRIPTION = {"model": "sew_resnet18", "pool": "max", "data": "digits", "seed": 1}


@pytest.fixture
def saved():
    torch.manual_seed(0)
    state = models.sew_resnet18(width=4).state_dict()
    file = weights.path(DESCRIPTION)
    weights.save(file, state, DESCRIPTION)
    return file, state


def test_what_was_saved_comes_back_bit_for_bit(saved):
    file, state = saved
    loaded = weights.load(file)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) and loaded[name].dtype == state[name].dtype for name in state)


def test_what_was_never_saved_is_none():
    assert weights.load(weights.path(DESCRIPTION)) is None


def test_every_part_of_the_description_changes_the_path():
    assert weights.path(DESCRIPTION) == weights.path(dict(reversed(DESCRIPTION.items())))
    assert weights.path(DESCRIPTION) != weights.path(DESCRIPTION | {"seed": 2})


def test_the_description_stands_in_the_file(saved):
    with safetensors.safe_open(saved[0], "pt") as opened:
        assert '"seed": 1' in opened.metadata()["description"]


@pytest.mark.parametrize("kept", [0, 7, 1000, -1])
def test_a_file_cut_short_is_refused_with_its_path(saved, kept):
    file, _ = saved
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(weights.CorruptWeightsError, match=str(file)):
        weights.load(file)


def test_a_flipped_bit_is_noticed(saved):
    file, _ = saved
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(weights.CorruptWeightsError, match="checksum"):
        weights.load(file)


def test_a_file_of_somebody_else_is_refused(saved):
    file, state = saved
    safetensors.torch.save_file(state, file)
    with pytest.raises(weights.CorruptWeightsError, match="checksum"):
        weights.load(file)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    assert weights.directory() == tmp_path / "cache" / "weights"
    monkeypatch.delenv("FASTSNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights.directory() == tmp_path / "xdg" / "fastsnn" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert weights.directory() == tmp_path / "home" / ".cache" / "fastsnn" / "weights"


def test_a_cache_that_cannot_be_written_to_is_refused(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="FASTSNN_CACHE"):
        weights.directory()
