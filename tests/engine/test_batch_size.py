from __future__ import annotations

import pytest
import torch

from fastsnn.engine.batch_size import ON_CPU, first_try, halved_until_it_fits


@pytest.mark.parametrize(
    ("room", "tried"),
    [(100, [100]), (99, [100, 50]), (7, [100, 50, 25, 12, 6]), (1, [100, 50, 25, 12, 6, 3, 1])],
)
def test_work_is_halved_until_it_fits(room, tried):
    sizes = []

    def work(size):
        sizes.append(size)
        if size > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return f"done {size}"

    assert halved_until_it_fits(work, 100) == (f"done {tried[-1]}", tried[-1])
    assert sizes == tried


def test_what_never_fits_and_other_errors_are_raised():
    def fail(error):
        raise error

    with pytest.raises(torch.OutOfMemoryError):
        halved_until_it_fits(lambda size: fail(torch.OutOfMemoryError("CUDA out of memory.")), 4)
    with pytest.raises(RuntimeError, match="something else"):
        halved_until_it_fits(lambda size: fail(RuntimeError("something else")), 4)


def test_a_cpu_gets_a_fixed_number_and_a_gpu_everything():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert (first_try(cpu, 7), first_try(cpu, 10_000)) == (7, ON_CPU)
    assert (first_try(gpu, 7), first_try(gpu, 10_000)) == (7, 10_000)
