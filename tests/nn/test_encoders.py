"""Encoders: what they return for known images, and against SpikingJelly's."""

import pytest
import torch

from fastsnn.nn import EventFrames


def test_event_frames_only_move_their_axes():
    frames = torch.randint(0, 256, (3, 4, 2, 5, 6), dtype=torch.uint8)
    x_seq = EventFrames(4)(frames)
    assert x_seq.dtype == torch.float32 and x_seq.shape == (4, 3, 2, 5, 6)
    assert torch.equal(x_seq, torch.stack([frames[:, t] / 255 for t in range(4)]))
    assert torch.equal(EventFrames(4)(frames / 255), x_seq)


def test_event_frames_let_gradients_through():
    frames = torch.rand(2, 3, 2, 4, 4, requires_grad=True)
    grad = torch.randn(3, 2, 2, 4, 4)
    EventFrames(3)(frames).backward(grad)
    assert torch.equal(frames.grad, grad.transpose(0, 1))


@pytest.mark.parametrize("shape", [(3, 5, 2, 6, 6), (3, 2, 6, 6)])
def test_recordings_of_another_length_are_refused(shape):
    with pytest.raises(ValueError, match=r"frames has shape .*, expected \[B, 4, C, H, W\]"):
        EventFrames(4)(torch.zeros(shape))
