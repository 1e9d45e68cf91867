"""Stems, which both families of ResNets have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastsnn

FAMILIES = ("sew_resnet18", "spiking_resnet18")


def build(family, **options):
    torch.manual_seed(0)
    return fastsnn.models.BUILDERS[family](width=4, **options).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cifar_stem_keeps_the_size_of_the_image(family):
    net, sizes = build(family, stem="cifar"), []
    assert (net.conv1.kernel_size, net.conv1.stride, net.conv1.padding) == ((3, 3), (1, 1), (1, 1))
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        stage.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape[3:])))
    assert net(torch.rand(2, 3, 3, 16, 16)).shape == (3, 10)
    assert sizes == [(16, 16), (16, 16), (8, 8), (4, 4)]


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_word_the_stem_is_imagenets_with_max_pooling(family):
    net = build(family)
    assert (net.conv1.kernel_size, net.conv1.stride) == ((7, 7), (2, 2))
    assert type(net.maxpool) is nn.MaxPool2d
    assert type(build(family, pool="avg").maxpool) is nn.AvgPool2d


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("family", FAMILIES)
def test_events_have_two_channels(family, stem):
    net = build(family, stem=stem, in_channels=2)
    assert net(torch.rand(2, 3, 2, 16, 16)).shape == (3, 10)
    with pytest.raises(ValueError, match=r"expected encoded input \[T, B, 2, H, W\]"):
        net(torch.rand(2, 3, 3, 16, 16))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stem_that_is_not_there_and_a_pool_that_it_lacks_are_refused(family):
    with pytest.raises(ValueError, match=r"stem is 'cifar10'.*Did you mean 'cifar'"):
        build(family, stem="cifar10")
    with pytest.raises(ValueError, match="pool is 'avg' with stem='cifar', which has no pool; expected None"):
        build(family, pool="avg", stem="cifar")
