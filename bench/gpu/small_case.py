"""Every op forward and backward on a few odd sizes with every backend that runs: something to watch for bad accesses.

python -m bench.gpu.small_case cuda
"""

from __future__ import annotations

import sys

import torch

from fastsnn import functional
from fastsnn.ops import backends


def main(device: str) -> None:
    """Run all of it, and say what ran."""
    names = [name for name in backends.NAMES[1:] if not backends.unavailable(name, torch.device(device))]
    for backend in names:
        for shape in ((10, 2, 8, 5, 7), (3, 2, 8, 4, 4), (17, 1, 3, 3, 3)):
            x = torch.randn(shape, device=device).requires_grad_()
            scale, shift = (torch.randn(shape[2], device=device).requires_grad_() for _ in range(2))
            residual = torch.rand(shape, device=device).requires_grad_()
            how = {"scale": scale, "shift": shift, "residual": residual, "junction": "iand", "backend": backend}
            functional.integrate_fire(x, **how).sum().backward()
            functional.multistep_lif(x, backend=backend).sum().backward()
            functional.attack_step(x.detach().sigmoid(), x.detach().sigmoid(), x.detach(), 0.1, 0.1, backend=backend)
        images = torch.randint(0, 256, (3, 3, 5, 7), dtype=torch.uint8, device=device)
        functional.phase_encode(images, 11, backend=backend)
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"every op ran on {device}: {', '.join(names)}")


if __name__ == "__main__":
    main(sys.argv[1])
