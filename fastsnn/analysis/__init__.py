"""Why gradients look as they do: sparsity layer by layer."""

from .sparsity import LayerGradient, Sparsity, gradient_sparsity

__all__ = ["LayerGradient", "Sparsity", "gradient_sparsity"]
