"""What "fast" means on a CPU: forwards weights of 16 bits, gradients by products of bfloat16."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import fastsnn
from fastsnn.engine import prepare
from fastsnn.engine import prepared as prepared_network
from fastsnn.nn import in_force
from fastsnn.ops import library


def batch(N=4):
    images = torch.randint(0, 256, (N, 3, 32, 32), dtype=torch.uint8)
    return fastsnn.functional.phase_encode(images), torch.randint(0, 10, (N,))


@pytest.fixture(params=["max", "avg"])
def net(request):
    torch.manual_seed(0)
    net = fastsnn.models.sew_resnet18(request.param, width=16).train()
    with torch.no_grad():
        for _ in range(5):
            net(batch(8)[0])
    return net.eval().requires_grad_(False)


def logits_and_gradient(network, precision, x, y):
    leaf = x.detach().requires_grad_()
    with fastsnn.nn.precision(precision):
        logits = network(leaf)
    return logits.detach(), torch.autograd.grad(cross_entropy(logits, y, reduction="sum"), leaf)[0]


def test_without_the_engine_logits_are_those_of_fp32_bit_for_bit(net):
    x, y = batch()
    assert torch.equal(*(logits_and_gradient(net, name, x, y)[0] for name in ("fp32", "fast")))


def test_of_layers_spikes_at_most_one_in_10000_differs(net):
    prepared, differing, places = prepare(net), 0, 0

    def beside(*layer):
        nonlocal differing, places
        outputs = []
        for name in ("fp32", "fast"):
            with fastsnn.nn.precision(name):
                outputs.append(prepared._compute(*layer))
        differing += (outputs[0] != outputs[1]).sum().item()
        places += outputs[0].numel()
        return outputs[0]

    with torch.no_grad(), in_force.computed_by(beside):
        net(batch(16)[0])
    assert differing <= places / 10000
    with fastsnn.nn.precision("fast"), torch.no_grad():
        fast = prepare(net)
        fast(batch()[0])
    taken = {row.dtype for row in fast.explain()[1:]}
    assert taken == ({"int16/bfloat16"} if library.has_bf16() else {"float32"})


def test_from_the_same_spikes_the_input_gradient_differs_by_a_few_percent_and_by_few_signs(net, monkeypatch):
    monkeypatch.setattr(prepared_network, "forward_dtype", prepared_network.product_dtype)
    x, y = batch()
    prepared = prepare(net)
    exact, fast = (logits_and_gradient(prepared, name, x, y)[1] for name in ("fp32", "fast"))
    assert fast.dtype == torch.float32
    assert (fast - exact).norm() <= 0.05 * exact.norm()
    assert (fast.sign() == exact.sign()).float().mean() >= 0.97
    assert torch.equal(fast, exact) != library.has_bf16()


def test_where_the_processor_does_not_multiply_bfloat16_fast_is_fp32(net, monkeypatch):
    monkeypatch.setattr(library, "has_bf16", lambda: False)
    x, y = batch(2)
    prepared = prepare(net)
    exact, fast = (logits_and_gradient(prepared, name, x, y)[1] for name in ("fp32", "fast"))
    assert torch.equal(fast, exact)
