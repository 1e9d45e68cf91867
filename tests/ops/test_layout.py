import pytest
import torch

from fastsnn.ops import layout

from . import cases


@pytest.mark.parametrize("kind", cases.LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 5, 6), (1, 1, 1, 1, 1), (2, 3, 1, 5, 6), (2, 3, 4, 1, 1), (2, 3), (3, 0, 4)]
)
def test_a_dense_tensor_has_the_same_values_in_one_of_two_layouts(shape, kind):
    x_seq = cases.lay_out(torch.rand(shape), kind)
    dense = layout.dense(x_seq)
    cases.assert_same_bits(dense, x_seq)
    assert dense.is_contiguous() or (kind == "channels_last" and layout.is_channels_last(dense))


@pytest.mark.parametrize("kind", ["contiguous", "channels_last"])
def test_a_tensor_that_is_dense_already_is_not_copied(kind):
    x_seq = cases.lay_out(torch.rand(2, 3, 4, 5, 6), kind)
    assert layout.dense(x_seq) is x_seq
    assert layout.like(x_seq, x_seq) is x_seq


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", cases.LAYOUTS)
@pytest.mark.parametrize("model", ["contiguous", "channels_last"])
def test_like_gives_a_tensor_the_layout_and_type_of_another(model, kind, dtype):
    tensor, model = cases.lay_out(torch.rand(2, 3, 4, 5, 6), kind), cases.lay_out(torch.rand(2, 3, 4, 5, 6), model)
    got = layout.like(tensor, model.to(dtype))
    assert got.stride() == model.stride()
    cases.assert_same_bits(got, tensor.to(dtype))


def test_neighbours_share_a_channel_over_a_frame_or_not_at_all():
    x_seq = torch.rand(2, 3, 4, 5, 6)
    assert layout.channel_inner(x_seq) == 30
    assert layout.channel_inner(cases.lay_out(x_seq, "channels_last")) == 1
    assert layout.channel_inner(torch.rand(2, 3, 4)) == 1
