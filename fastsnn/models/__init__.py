"""Networks, with the parameter names of SpikingJelly and torchvision."""

from .classifier import Classifier
from .sew_resnet import SEWResNet, sew_resnet18, sew_resnet34, sew_resnet50, sew_resnet101, sew_resnet152
from .spiking_resnet import SpikingResNet, spiking_resnet18, spiking_resnet34, spiking_resnet50

_SEW = (sew_resnet18, sew_resnet34, sew_resnet50, sew_resnet101, sew_resnet152)
_SPIKING = (spiking_resnet18, spiking_resnet34, spiking_resnet50)
BUILDERS = {builder.__name__: builder for builder in (*_SEW, *_SPIKING)}

__all__ = ["BUILDERS", "Classifier", "SEWResNet", "SpikingResNet", *BUILDERS]
