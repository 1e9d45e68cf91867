import pytest
import torch

from .comparisons import compare_phase_encode, pictures


@pytest.mark.parametrize("K", [1, 2, 7, 8, 9, 16])
@pytest.mark.parametrize("T", [1, 10, 19])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_period_and_length_equals_the_reference(backend, T, K, weighted):
    for images in pictures(1, 27, 19):
        compare_phase_encode(backend, "cpu", images, T, K, weighted)


def test_any_layout_equals_the_reference(backend):
    for images in pictures(2, 3, 5, 7):
        compare_phase_encode(backend, "cpu", images.movedim(1, -1), 10, 8, False)
        compare_phase_encode(backend, "cpu", images[..., ::2], 10, 8, True)


def test_empty_batches_pass(backend):
    compare_phase_encode(backend, "cpu", torch.empty(0, 3, 4, 4), 5, 8, False)
