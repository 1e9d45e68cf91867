"""Networks, with the parameter names of SpikingJelly and torchvision, or of the public code they come from."""

from .classifier import Classifier
from .from_spikingjelly import from_spikingjelly
from .resnet import NO_POOL, POOLS, STEM, STEMS
from .sew_resnet import SEWResNet, sew_resnet18, sew_resnet34, sew_resnet50, sew_resnet101, sew_resnet152
from .spiking_resnet import SpikingResNet, spiking_resnet18, spiking_resnet34, spiking_resnet50
from .vgg import VGG, vgg11
from .wide_resnet import WideResNet, wrn16_4

_SEW = (sew_resnet18, sew_resnet34, sew_resnet50, sew_resnet101, sew_resnet152)
_SPIKING = (spiking_resnet18, spiking_resnet34, spiking_resnet50)
BUILDERS = {builder.__name__: builder for builder in (*_SEW, *_SPIKING, vgg11, wrn16_4)}
SIZED = ("vgg11",)  # builders that take the input's `image_size`
STEMMED = tuple(builder.__name__ for builder in (*_SEW, *_SPIKING))  # builders that take a `stem`
POOLINGS = {name: tuple(POOLS) for name in BUILDERS} | {"wrn16_4": ("avg",)}  # what each takes for `pool`

__all__ = [
    "BUILDERS",
    "NO_POOL",
    "POOLINGS",
    "POOLS",
    "SIZED",
    "STEM",
    "STEMMED",
    "STEMS",
    "VGG",
    "Classifier",
    "SEWResNet",
    "SpikingResNet",
    "WideResNet",
    "from_spikingjelly",
    *BUILDERS,
]
