import inspect

import pytest
import torch

import fastsnn
from fastsnn import functional

from .ops import cases


def test_the_public_names_are_there_and_documented():
    names = ["attack_step", "integrate_fire", "multistep_if", "multistep_lif", "phase_encode"]
    assert sorted(functional.__all__) == names
    assert all(inspect.getdoc(getattr(fastsnn.functional, name)) for name in names)


@pytest.mark.parametrize("layer", [functional.multistep_if, functional.multistep_lif])
def test_a_layer_of_neurons_is_integrate_fire_with_fewer_options(layer):
    x_seq = torch.rand(5, 3, 4)
    how = {"v_threshold": 0.75, "v_reset": -0.25, "surrogate": "triangle", "alpha": 1.0, "detach_reset": False}
    how["v_init"] = torch.rand(3, 4)
    tau = {} if layer is functional.multistep_if else {"tau": 1.5, "decay_input": False}
    results = []
    for function in (layer, functional.integrate_fire):
        leaf = x_seq.clone().requires_grad_()
        spikes = function(leaf, **how, **tau)
        results.append((spikes.detach(), torch.autograd.grad(spikes.sum(), leaf)[0]))
    for got, expected in zip(*results, strict=True):
        cases.assert_same_bits(got, expected)


def test_the_defaults_are_the_papers_neuron_and_encoder():
    defaults = {
        name: parameter.default
        for function in (functional.integrate_fire, functional.multistep_lif, functional.phase_encode)
        for name, parameter in inspect.signature(function).parameters.items()
    }
    assert defaults["v_threshold"] == 1.0 and defaults["v_reset"] == 0.0 and defaults["detach_reset"] is True
    assert defaults["surrogate"] == "atan" and defaults["alpha"] == 2.0 and defaults["tau"] == 2.0
    assert defaults["T"] == 10 and defaults["K"] == 8 and defaults["backend"] is None


def test_every_signature_agrees_on_its_defaults():
    common = inspect.signature(functional.integrate_fire).parameters
    for layer in (functional.multistep_if, functional.multistep_lif):
        for name, parameter in inspect.signature(layer).parameters.items():
            if name != "tau":
                assert parameter.default == common[name].default, name


def test_an_encoded_image_an_if_layer_and_a_step_compile_without_breaks_to_the_eager_bits():
    def encode_and_fire(images, weight):
        x_seq = functional.phase_encode(images, T=4, weighted=True, straight_through=True)
        return functional.multistep_if(x_seq * weight, surrogate="rectangle", alpha=1.0)

    def step(images, gradient):
        return functional.attack_step(images, images, gradient, 8 / 255, 2 / 255)

    images, weight = torch.rand(3, 5, 7), torch.full((7,), 2.0)
    results = []
    for compiled in (False, True):
        fire, move = ((torch.compile(f, fullgraph=True) if compiled else f) for f in (encode_and_fire, step))
        leaf = images.clone().requires_grad_()
        spikes = fire(leaf, weight)
        (gradient,) = torch.autograd.grad(spikes, leaf, torch.ones_like(spikes))
        results.append((spikes.detach(), gradient, move(images, gradient)))
    for got, expected in zip(*results, strict=True):
        cases.assert_same_bits(got, expected, signed_zeros=False)
    assert results[0][1].unique().numel() > 2
