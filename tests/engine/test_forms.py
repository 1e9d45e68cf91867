from __future__ import annotations

import pytest
import torch
from torch import nn

from fastsnn.engine import forms
from fastsnn.ops import library

WITH_KERNELS = set(library.instruction_sets()) - {"baseline"}
KERNELS = {"Winograd", "windows GEMM"}  # forms that are kernels of our own
CASES = {  # conv arguments, map size, the forms that fit in float32, the rule's choice first
    "pointwise": ((5, 7, 1), (6, 9), ["pointwise GEMM", "windows GEMM", "channels last"]),
    "pointwise, stride 2": ((5, 7, 1, 2), (6, 11), ["pointwise GEMM", "channels last"]),
    "pointwise, strides 2 and 3": ((5, 7, 1, (2, 3)), (6, 9), ["pointwise GEMM", "channels last"]),
    "pointwise, one pixel": ((5, 7, 1, 2), (1, 1), ["pointwise GEMM", "dense GEMM", "windows GEMM", "channels last"]),
    "3x3 on 1x1": ((5, 7, 3, 1, 1), (1, 1), ["dense GEMM", "windows GEMM", "channels last"]),
    "3x3 on 2x2": ((5, 7, 3, 1, 1), (2, 2), ["Winograd", "dense GEMM", "windows GEMM", "channels last"]),
    "3x3 on 2x2, stride 2": ((5, 7, 3, 2, 1), (2, 2), ["dense GEMM", "windows GEMM", "channels last"]),
    "3x3 on 1x3": ((5, 7, 3, 1, 1), (1, 3), ["dense GEMM", "windows GEMM", "channels last"]),
    "5x5 on 2x2": ((5, 7, 5, 1, 2), (2, 2), ["dense GEMM", "windows GEMM", "channels last"]),
    "3x5 on 1x2": ((5, 7, (3, 5), 1, (1, 2)), (1, 2), ["dense GEMM", "channels last"]),
    "1x1 padded": ((5, 7, 1, 1, 1), (2, 2), ["dense GEMM", "windows GEMM", "channels last"]),
    "3x3": ((5, 7, 3, 1, 1), (6, 11), ["Winograd", "channels last"]),
    "3x3, many channels": ((33, 47, 3, 1, 1), (4, 5), ["Winograd", "windows GEMM", "channels last"]),
    "3x3, 3 channels": ((3, 7, 3, 1, 1), (6, 9), ["Winograd", "windows GEMM", "channels last"]),
    "3x3, stride 2": ((5, 7, 3, 2, 1), (7, 10), ["channels last"]),
    "3x3, stride 2, on 8x8": ((5, 7, 3, 2, 1), (8, 8), ["windows GEMM", "channels last"]),
    "3x3, no padding": ((5, 7, 3), (9, 8), ["channels last"]),
    "stem": ((3, 7, 7, 2, 3), (32, 32), ["windows GEMM", "space to depth", "channels last"]),
    "stem, odd map": ((3, 7, 7, 2, 3), (33, 47), ["windows GEMM", "space to depth", "channels last"]),
    "stem of 6 channels": ((6, 7, 7, 2, 3), (9, 12), ["space to depth", "channels last"]),
    "5x5, stride 2": ((3, 7, 5, 2, 2), (10, 13), ["windows GEMM", "space to depth", "channels last"]),
    "4x4, stride 2, no padding": ((3, 7, 4, 2), (9, 12), ["windows GEMM", "space to depth", "channels last"]),
    "3x3 with a wide rim": ((2, 7, 3, 1, 4), (5, 6), ["windows GEMM", "channels last"]),
}
LAYOUTS = {  # of frames [N, H, W, C]
    "contiguous": lambda frames: frames.contiguous(),
    "channels first": lambda frames: frames.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    "sliced": lambda frames: frames.repeat_interleave(2, 2)[:, :, ::2],
}
every_case = pytest.mark.parametrize("case", CASES)


def frozen(*arguments, **options):
    return nn.Conv2d(*arguments, **options).requires_grad_(False)


def convolved(conv, frames):
    """The specification."""
    return conv(frames.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def fitting(conv, shape, dtype):
    """The fitting forms, built."""
    return [form(conv, forms.Dtypes(dtype, dtype, dtype), shape) for form, _ in forms.fitting(conv, shape, dtype)]


@every_case
def test_the_rule_knows_what_fits_and_says_why(case):
    arguments, (H, W), names = CASES[case]
    conv = frozen(*arguments)
    fits = forms.fitting(conv, (4, H, W, arguments[0]), torch.float32)
    assert [form.name for form, _ in fits] == [name for name in names if WITH_KERNELS or name not in KERNELS]
    assert all(why for _, why in fits)
    for dtype in (torch.bfloat16, torch.float64):
        fits = forms.fitting(conv, (4, H, W, arguments[0]), dtype)
        assert [form.name for form, _ in fits] == [name for name in names if name not in KERNELS]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("layout", LAYOUTS)
@every_case
def test_every_form_gives_the_convolutions_output_and_input_gradient(case, layout, bias, dtype):
    arguments, size, _ = CASES[case]
    conv = frozen(*arguments, bias=bias).to(dtype)
    shape = (4, *size, arguments[0])
    x, exact = torch.randn(shape, dtype=dtype), frozen(*arguments, bias=bias).double()
    exact.load_state_dict(conv.state_dict())
    leaf = x.double().requires_grad_()
    expected = convolved(exact, leaf)
    grad = torch.randn(expected.shape, dtype=dtype)
    (expected_grad,) = torch.autograd.grad(expected, leaf, grad.double())
    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}
    for form in fitting(conv, shape, dtype):
        out, grad_x = form.forward(LAYOUTS[layout](x)), form.backward(LAYOUTS[layout](grad))
        what = f"{form.name}: {{}}".format
        torch.testing.assert_close(out, expected.detach().to(dtype), **near, msg=what)
        torch.testing.assert_close(grad_x, expected_grad.to(dtype), **near, msg=what)


@every_case
def test_no_form_keeps_or_changes_what_it_is_given(case):
    arguments, size, _ = CASES[case]
    conv = frozen(*arguments)
    weight, x = conv.weight.clone(), torch.randn(3, *size, arguments[0])
    for form in fitting(conv, x.shape, torch.float32):
        given = x.clone()
        out = form.forward(given)
        first = out.clone()
        grad = torch.randn(out.shape)
        kept = grad.clone()
        form.backward(grad)
        form.forward(torch.ones_like(x))
        assert torch.equal(given, x) and torch.equal(grad, kept) and torch.equal(out, first), form.name
    assert torch.equal(conv.weight, weight)


@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation": 2}, {"padding_mode": "circular"}], ids=str)
def test_what_the_rule_does_not_know_is_never_taken_for_a_plain_convolution(options):
    for arguments in ((4, 6, 3, 1, 2), (4, 6, 3, 1, 1), (4, 6, 1), (4, 6, 5, 2, 2)):
        conv = frozen(*arguments, **options)
        for size in ((6, 6), (5, 5), (2, 2)):
            x = torch.randn(2, *size, 4)
            for form in fitting(conv, x.shape, torch.float32) if convolves(conv, x) else ():
                torch.testing.assert_close(form.forward(x), convolved(conv, x), msg=f"{form.name}: {{}}".format)


def convolves(conv, frames):
    try:
        convolved(conv, frames)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name_fits_no_form(padding):
    assert forms.fitting(frozen(4, 6, 3, padding=padding), (2, 6, 6, 4), torch.float32) == []


@pytest.mark.parametrize("size", [(2, 2), (3, 9), (9, 3)])
def test_a_kernel_larger_than_its_padded_map_fits_no_form(size):
    for channels in (3, 8):
        assert forms.fitting(frozen(channels, 4, 6, 2, 1), (2, *size, channels), torch.float32) == []


@every_case
def test_bfloat16_products_err_at_most_twice_as_much_as_plain_torchs(case):
    arguments, size, _ = CASES[case]
    conv = frozen(*arguments, bias=False)
    x = torch.randint(0, 3, (16, *size, arguments[0])).float()
    exact = convolved(conv.double(), x.double())
    plain = convolved(conv.bfloat16(), x.bfloat16())
    for form in fitting(conv.float(), x.shape, torch.bfloat16):
        out = form.forward(x.bfloat16())
        assert out.dtype == form.backward(out).dtype == torch.bfloat16
        assert (out - exact).norm() <= 2 * (plain - exact).norm(), form.name


@every_case
def test_without_fused_multiply_add_torch_computes_the_products(case, monkeypatch):
    arguments, size, names = CASES[case]
    conv, x = frozen(*arguments), torch.randn(3, *size, arguments[0])
    monkeypatch.setattr(library, "instruction_sets", lambda: ["baseline"])
    monkeypatch.setattr(library, "run", None)
    built = fitting(conv, x.shape, torch.float32)
    assert [form.name for form in built] == [name for name in names if name not in KERNELS]
    for form in built:
        torch.testing.assert_close(form.forward(x), convolved(conv, x), msg=f"{form.name}: {{}}".format)
