"""What a number belongs to."""

from __future__ import annotations

import torch

from fastsnn.sweep import machine as describe


def machine() -> str:
    """Name the processor, the threads and the versions, in a line."""
    about, versions = describe.describe(), describe.versions()
    return (
        f"{about['processor']}, {', '.join(about['instruction_sets'][:1])}, {torch.get_num_threads()} threads; "
        f"torch {versions['torch']}, SpikingJelly {versions['spikingjelly']}"
    )
