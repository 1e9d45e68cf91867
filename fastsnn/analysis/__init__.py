"""Why gradients look as they do: sparsity layer by layer, and what causes it."""

from .causes import Attribution, attribute_zeros, switched_off
from .sparsity import LayerGradient, Sparsity, gradient_sparsity

__all__ = ["Attribution", "LayerGradient", "Sparsity", "attribute_zeros", "gradient_sparsity", "switched_off"]
