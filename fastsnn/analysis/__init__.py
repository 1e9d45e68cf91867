"""Why gradients look as they do: sparsity layer by layer, its causes, the theorems about it, and a verdict."""

from .causes import Attribution, attribute_zeros, switched_off
from .density import Densities, densities
from .judge import Check
from .shared_zeros import SharedZeros, shared_zeros
from .snr import GradientSNR, gradient_snr
from .sparsity import gradient_sparsity
from .table import LayerGradient, Sparsity
from .verdict import Verdict, verdict
from .vulnerability import Vulnerability, vulnerability

__all__ = [
    "Attribution",
    "Check",
    "Densities",
    "GradientSNR",
    "LayerGradient",
    "SharedZeros",
    "Sparsity",
    "Verdict",
    "Vulnerability",
    "attribute_zeros",
    "densities",
    "gradient_snr",
    "gradient_sparsity",
    "shared_zeros",
    "switched_off",
    "verdict",
    "vulnerability",
]
