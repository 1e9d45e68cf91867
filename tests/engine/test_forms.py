from __future__ import annotations

import pytest
import torch
from torch import nn

from fastsnn.engine import forms

CASES = {  # conv arguments, map size, the form the rule chooses
    "pointwise": ((5, 7, 1), (6, 9), "pointwise GEMM"),
    "pointwise, stride 2": ((5, 7, 1, 2), (6, 9), "pointwise GEMM"),
    "pointwise, one pixel": ((5, 7, 1, 2), (1, 1), "pointwise GEMM"),
    "3x3 on 1x1": ((5, 7, 3, 1, 1), (1, 1), "dense GEMM"),
    "3x3 on 2x2": ((5, 7, 3, 1, 1), (2, 2), "dense GEMM"),
    "3x3 on 2x2, stride 2": ((5, 7, 3, 2, 1), (2, 2), "dense GEMM"),
    "3x3 on 1x3": ((5, 7, 3, 1, 1), (1, 3), "dense GEMM"),
    "5x5 on 2x2": ((5, 7, 5, 1, 2), (2, 2), "dense GEMM"),
    "1x1 padded": ((5, 7, 1, 1, 1), (2, 2), "dense GEMM"),
    "3x3": ((5, 7, 3, 1, 1), (6, 9), "channels last"),
    "3x3, stride 2": ((5, 7, 3, 2, 1), (7, 4), "channels last"),
    "stem": ((3, 7, 7, 2, 3), (32, 32), "space to depth"),
    "stem, odd map": ((3, 7, 7, 2, 3), (33, 47), "space to depth"),
    "5x5, stride 2": ((3, 7, 5, 2, 2), (10, 13), "space to depth"),
    "4x4, stride 2, no padding": ((3, 7, 4, 2), (9, 12), "space to depth"),
}


def grouped(**options):
    return nn.Conv2d(4, 6, 3, padding=2, **options)


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("case", CASES)
def test_every_form_gives_the_convolutions_output_and_input_gradient(case, layout, bias):
    arguments, size, expected_name = CASES[case]
    conv = nn.Conv2d(*arguments, bias=bias).double()
    conv.requires_grad_(False)
    x = torch.randn(4, arguments[0], *size, dtype=torch.double).contiguous(memory_format=layout).requires_grad_()
    name, _, form = forms.choose(conv, x.shape, torch.double)
    assert name == expected_name
    out, expected = form(x), conv(x)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(out, x, grad), torch.autograd.grad(expected, x, grad))


@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation": 2}, {"padding_mode": "circular"}], ids=str)
def test_what_the_rule_does_not_know_is_never_taken_for_a_plain_convolution(options):
    conv = grouped(**options)
    conv.requires_grad_(False)
    for size in ((6, 6), (2, 2)):
        x = torch.randn(2, 4, *size)
        _, _, form = forms.choose(conv, x.shape, torch.float32)
        torch.testing.assert_close(form(x), conv(x))


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_products_err_at_most_twice_as_much_as_plain_torchs(case):
    arguments, size, _ = CASES[case]
    conv = nn.Conv2d(*arguments, bias=False)
    conv.requires_grad_(False)
    x = torch.randint(0, 3, (16, arguments[0], *size)).float()
    exact = conv.double()(x.double())
    conv.float()
    plain = nn.functional.conv2d(x.bfloat16(), conv.weight.bfloat16(), None, conv.stride, conv.padding)
    _, _, form = forms.choose(conv, x.shape, torch.bfloat16)
    assert form(x).dtype == torch.bfloat16
    assert (form(x) - exact).norm() <= 2 * (plain - exact).norm()
