"""Training by several processes: started by torchrun on two CPUs' gloo, see two_processes.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fastsnn.training import Ranks
from fastsnn.training.ranks import of_torchrun

from .two_processes import DEFENCES


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, root = tmp_path_factory.mktemp("two"), Path(__file__).parents[2]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    command = [*torchrun, "-m", "tests.training.two_processes", str(folder)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)], done.stderr


def test_an_interrupted_training_goes_on_and_has_the_same_bits(run):
    folder, found, _ = run
    assert [one["codes"][:3] for one in found] == [[0, 0, 0]] * 2
    (whole,), (half,) = ((folder / name).iterdir() for name in ("whole", "half"))
    for file in ("latest", "checkpoint"):
        a, b = (safetensors.torch.load_file(one / f"{file}.safetensors") for one in (whole, half))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a if name != "random.torch")
    assert json.loads((whole / "training.json").read_text())["processes"] == 2
    assert len((half / "log.csv").read_text().splitlines()) == 3, "one process writes"


@pytest.mark.parametrize("defence", DEFENCES)
def test_weights_agree_bit_for_bit_across_processes(run, defence):
    assert all(one[defence] for one in run[1])


def test_two_processes_make_the_steps_that_one_makes_with_the_whole_batch(run):
    for one in run[1]:
        assert one["from one process"] < 1e-5
        assert one["losses"][0] == pytest.approx(one["losses"][1], rel=1e-6)


def test_what_cannot_be_shared_is_refused_with_one_sentence(run):
    folder, found, err = run
    assert [one["codes"][3:] for one in found] == [[2, 2]] * 2 and not (folder / "refused").exists()
    for sentence in (
        "train_batch_size is 15, but 2 processes share a batch; expected a multiple",
        "only fastsnn train divides its work",
    ):
        assert err.count(sentence) == 1


def test_a_gpu_is_never_shared(monkeypatch):
    started = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="device is 'cuda:0', but 2 processes cannot share one"), of_torchrun("cuda:0"):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 processes here, but torch sees 1 GPUs"), of_torchrun("auto"):
        pass


def test_shares_are_even_and_cover_a_batch():
    for size in (1, 2, 3, 8):
        for n in (1, 5, 8, 24):
            shares = [Ranks(rank, size).share(torch.arange(n)) for rank in range(size)]
            assert len({len(share) for share in shares}) == 1 and len(shares[0]) == -(-n // size)
            assert torch.cat(shares)[:n].equal(torch.arange(n))
