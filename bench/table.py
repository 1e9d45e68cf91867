"""Prints the README's table of speeds, in Markdown, from a run of the bench.

pytest bench --benchmark-only --benchmark-json=bench.json && python -m bench.table bench.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

PAPER, COMPILED = "the paper's loop", "frozen weights and torch.compile"
ROWS = {  # benchmark -> what was measured, and the baseline where it is not plain SpikingJelly
    "test_pgd7_vs_papers_loop[18-max-fp32]": (
        "PGD-7, SEW-ResNet18 max, batch 16, fp32",
        f"{PAPER} (train mode, weight gradients)",
    ),
    "test_pgd7_vs_papers_loop[18-max-fast]": ('the same, `precision="fast"`', PAPER),
    "test_pgd7_train_mode_vs_papers_loop[18-max]": ("the same, fp32, train mode on both sides", PAPER),
    "test_pgd7_vs_frozen_loop[18-max-compiled]": ("the same, fp32", COMPILED),
    "test_pgd7_vs_papers_loop[50-avg-fp32]": ("PGD-7, SEW-ResNet50 avg, batch 16, fp32", PAPER),
    "test_pgd7_vs_papers_loop[50-avg-fast]": ('the same, `precision="fast"`', PAPER),
    "test_pgd7_train_mode_vs_papers_loop[50-avg]": ("the same, fp32, train mode on both sides", PAPER),
    "test_pgd7_vs_frozen_loop[50-avg-compiled]": ("the same, fp32", COMPILED),
    "test_adam_step_vs_spikingjelly": ("one Adam step, SEW-ResNet18 max, batch 16, fp32", ""),
    "test_memory_of_pgd_vs_loop[18-max-a]": ("memory of PGD, SEW-ResNet18 max, batch 16, fp32", PAPER),
    "test_memory_of_pgd_vs_loop[50-avg-a]": ("memory of PGD, SEW-ResNet50 avg, batch 16, fp32", PAPER),
    "test_if_forward_and_backward_vs_spikingjelly[layer1]": ("IF neuron, forward + backward, [10, 16, 64, 8, 8]", ""),
    "test_if_forward_vs_spikingjelly[layer1]": ("IF neuron, forward, [10, 16, 64, 8, 8]", ""),
    "test_if_forward_vs_spikingjelly[layer4]": ("IF neuron, forward, [10, 16, 512, 1, 1]", ""),
}


def markdown(run: dict) -> str:
    """Return the table for a run that pytest-benchmark wrote; what was not run has no row.

    Raises:
        ValueError: the run holds none of the comparisons, or they come from more than one machine.
    """
    found = {benchmark["name"]: benchmark["extra_info"] for benchmark in run.get("benchmarks", ())}
    found = {name: found[name] for name in ROWS if name in found}
    if not found:
        raise ValueError(f"the run holds none of the comparisons of the table, such as {next(iter(ROWS))}.")
    machines = {about["machine"] for about in found.values()}
    if len(machines) > 1:
        raise ValueError(f"the run mixes machines: {' and '.join(sorted(machines))}.")
    lines = [f"Measured on {machines.pop()}:", "", "| | fastsnn | SpikingJelly | ratio |", "|---|---|---|---|"]
    for name, about in found.items():
        what, against = ROWS[name]
        unit = "bytes" if "candidate_bytes" in about else "seconds"
        ours, theirs = (_amount(about[f"{side}_{unit}"], unit) for side in ("candidate", "baseline"))
        lines.append(f"| {what} | {ours} | {theirs}{against and f', {against}'} | {about['ratio']:.1f}x |")
    return "\n".join(lines)


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if value >= 0.1:
        return f"{value:.2f} s"
    return f"{1e3 * value:.2f} ms" if value >= 1e-4 else f"{1e3 * value:.3f} ms"


def main() -> None:
    """Print the table of the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the file of --benchmark-json")
    arguments = parser.parse_args()
    try:
        print(markdown(json.loads(arguments.run.read_text())))
    except (OSError, ValueError) as error:
        parser.error(f"{arguments.run}: {error}")


if __name__ == "__main__":
    main()
