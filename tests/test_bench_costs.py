"""The benches of what attacks, counting and a step's parts cost run through, on small networks."""

import sys

import pytest
import torch

pytest.importorskip("spikingjelly", reason="bench compares with SpikingJelly")

from bench import attack_logic, counting, floor

COMMANDS = {
    counting: (["--widths", "4", "--threads", "1", "--batches", "3", "--rounds", "1"], 4, "| 4 | avg | 1 |"),
    attack_logic: (["--width", "4", "--steps", "3", "--rounds", "1"], 11, "| PGD, l2 |"),
    floor: (["--depths", "18", "--rounds", "1"], 14, "replayed over the floor"),
}


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.__name__)
def test_it_prints_its_table(module, monkeypatch, capsys):
    flags, lines, row = COMMANDS[module]
    monkeypatch.setattr(sys, "argv", [module.__name__, *flags])
    module.main()
    out = capsys.readouterr().out
    assert row in out and len(out.splitlines()) >= lines
    for line in out.splitlines():
        if line.startswith("| PGD |"):
            looks, own = map(float, line.split("|")[2:4])
            assert looks > own > 0, "replayed steps are looks"
