"""Why gradients look as they do: sparsity layer by layer, what causes it, and the theorems about it in numbers."""

from .causes import Attribution, attribute_zeros, switched_off
from .density import Densities, densities
from .shared_zeros import SharedZeros, shared_zeros
from .snr import GradientSNR, gradient_snr
from .sparsity import LayerGradient, Sparsity, gradient_sparsity
from .vulnerability import Vulnerability, vulnerability

__all__ = [
    "Attribution",
    "Densities",
    "GradientSNR",
    "LayerGradient",
    "SharedZeros",
    "Sparsity",
    "Vulnerability",
    "attribute_zeros",
    "densities",
    "gradient_snr",
    "gradient_sparsity",
    "shared_zeros",
    "switched_off",
    "vulnerability",
]
