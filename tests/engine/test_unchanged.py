import pytest
import torch

from fastsnn.engine.unchanged import are_unchanged, known


@pytest.fixture(params=["fingerprints, as on a CPU", "copies, as on a GPU"])
def remember(request):
    return known if request.param.startswith("fingerprints") else torch.clone


def test_each_list_is_judged_by_its_own_tensors(remember):
    tensors = [torch.randn(3, 4), torch.randn(5), torch.randn(2), torch.zeros(2)]
    then = [remember(tensor) for tensor in tensors]
    lists = [(tensors[:2], then[:2]), (tensors[2:], then[2:]), ([], [])]
    assert are_unchanged(lists) == [True, True, True]
    tensors[2][1] += 1e-6
    assert are_unchanged(lists) == [True, False, True]
    assert are_unchanged([]) == []


def test_what_is_gone_or_of_another_size_or_type_has_changed(remember):
    tensor = torch.zeros(2)
    then = [remember(tensor)]
    others = [[None], [], [tensor, tensor], [torch.zeros(1, 2)], [torch.zeros(2).double()]]
    assert are_unchanged([(now, then) for now in [*others, [tensor]]]) == [False] * 5 + [True]


def test_a_copy_with_infinities_is_never_taken_for_the_same():
    tensor = torch.tensor([1.0, float("inf")])
    assert are_unchanged([([tensor], [tensor.clone()])]) == [False]
