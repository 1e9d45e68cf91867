"""Networks, with the parameter names of SpikingJelly and torchvision."""

from .classifier import Classifier
from .sew_resnet import SEWResNet, sew_resnet18, sew_resnet34, sew_resnet50, sew_resnet101, sew_resnet152

BUILDERS = {
    builder.__name__: builder for builder in (sew_resnet18, sew_resnet34, sew_resnet50, sew_resnet101, sew_resnet152)
}

__all__ = ["BUILDERS", "Classifier", "SEWResNet", *BUILDERS]
