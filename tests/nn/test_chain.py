from __future__ import annotations

import pytest
import torch
from torch import nn

from fastsnn.nn import Chain, Dropout, IFNode, LIFNode, Normalize, chain

LAYERS = {
    "convolution, norm, neurons, pool": lambda: [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), IFNode(), nn.AvgPool2d(2)],
    "convolutions alone": lambda: [nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4)],
    "norm first": lambda: [nn.BatchNorm2d(3), IFNode(v_threshold=0.5), nn.Conv2d(3, 2, 1), nn.ReLU()],
    "neurons first": lambda: [LIFNode(v_threshold=0.3), nn.MaxPool2d(2), nn.Conv2d(3, 8, 1), IFNode(v_threshold=0.1)],
    "linear": lambda: [nn.Flatten(), nn.Linear(192, 30), IFNode(v_threshold=0.2), nn.Linear(30, 4), nn.BatchNorm1d(4)],
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_chain_gives_what_its_layers_give_one_by_one(name, training):
    layers = LAYERS[name]()
    x_seq, whole = torch.rand(4, 3, 3, 8, 8), Chain(*layers).train(training)
    out, expected = whole(x_seq), x_seq
    for module in layers:
        if isinstance(module, IFNode):
            expected = module(expected)
        else:
            expected = module(expected.flatten(0, 1)).unflatten(0, (4, 3))
    assert expected.std() > 0
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_only_what_comes_from_neurons_or_is_said_to_be_is_taken_for_spikes(monkeypatch):
    layers = (nn.Conv2d(1, 1, 1), IFNode(), nn.MaxPool2d(2), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    seen, compute = [], chain.spiking_layer

    def listening(*arguments, spikes):
        seen.append(spikes)
        return compute(*arguments, spikes=spikes)

    monkeypatch.setattr(chain, "spiking_layer", listening)
    Chain(*layers)(torch.rand(2, 1, 1, 4, 4))
    Chain(*layers, spikes=True)(torch.rand(2, 1, 1, 4, 4))
    assert seen == [False, True, False, True, True, False]


def test_a_slice_of_a_chain_is_a_chain():
    whole = Chain(nn.Conv2d(1, 1, 1), IFNode(), nn.MaxPool2d(2))
    assert type(whole[:2]) is Chain and whole[:2](torch.rand(2, 1, 1, 4, 4)).shape == (2, 1, 1, 4, 4)


@pytest.mark.parametrize("p", [-0.1, 1, 1.5])
def test_dropout_of_nothing_less_or_everything_is_refused(p):
    with pytest.raises(ValueError, match=rf"p is {p}"):
        Dropout(p)


def test_what_normalize_holds_moves_with_it_and_is_no_weight():
    normalize = Normalize((0.5, 0.25), (2, 4)).double()
    assert not normalize.state_dict() and not list(normalize.parameters())
    out = normalize(torch.ones(3, 1, 2, 5, 5, dtype=torch.float64))
    assert out.dtype == torch.float64
    assert out[:, :, 0].unique().tolist() == [0.25] and out[:, :, 1].unique().tolist() == [0.1875]
