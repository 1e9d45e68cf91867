import subprocess
import sys

import pytest
import torch

from fastsnn import doctor
from fastsnn.ops import backends, library
from fastsnn.ops.phase_encode import cpu as phase_encode_cpu

pytestmark = pytest.mark.skipif(bool(library.unavailable()), reason=library.unavailable() or "the C++ kernels run")


def test_a_healthy_machine_passes(capsys):
    assert doctor.main() == 0
    out = capsys.readouterr().out
    assert "all checks ok" in out and "FAILED" not in out
    for part in ("python", torch.__version__.split("+")[0], "instruction_sets", "avx", "threads", "backends on cpu"):
        assert part in out
    assert backends.unavailable("triton", torch.device("cpu")) in out


def test_every_op_is_checked_with_every_backend_that_runs():
    runs = [name for name in backends.NAMES if not backends.unavailable(name, torch.device("cpu"))]
    checked = {(check.op.split(",")[0], check.backend) for check in doctor.self_check() if check.device == "cpu"}
    ops = ("integrate_fire", "phase_encode", "attack_step")
    assert checked == {(op, backend) for op in ops for backend in runs if backend != "reference"}


def test_a_wrong_value_fails(monkeypatch, capsys):
    right = phase_encode_cpu.forward
    monkeypatch.setattr(
        phase_encode_cpu, "forward", lambda *inputs: right(*inputs).index_fill_(0, torch.tensor(0), 2.0)
    )
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert "phase_encode" in out and "FAILED: " in out and "values differ" in out and "1 checks FAILED" in out


def test_a_wrong_gradient_fails(monkeypatch):
    from fastsnn.ops.integrate_fire import cpu

    right = cpu.backward
    monkeypatch.setattr(cpu, "backward", lambda *inputs: (right(*inputs)[0] * 1.001, *right(*inputs)[1:]))
    wrong = {check.op: check.wrong for check in doctor.self_check() if check.backend == "cpu"}
    assert "gradient of input is off by" in wrong["integrate_fire"] and wrong["attack_step"] == ""


def test_a_backend_that_breaks_fails_with_its_reason(monkeypatch):
    from fastsnn.ops.attack_step import cpu

    def broken(*_):
        raise RuntimeError("the kernel failed with status 7.")

    monkeypatch.setattr(cpu, "forward", broken)
    wrong = {check.op: check.wrong for check in doctor.self_check() if check.backend == "cpu"}
    assert wrong["attack_step"] == "RuntimeError: the kernel failed with status 7."


def test_the_core_dependencies_are_enough():
    hide = "import sys; sys.modules.update(dict.fromkeys(['rich', 'matplotlib', 'safetensors', 'sklearn']));"
    command = [sys.executable, "-c", f"{hide} from fastsnn.cli import main; sys.exit(main(['doctor']))"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "all checks ok" in done.stdout, done.stderr
    command[2] = f"{hide} from fastsnn.cli import main; sys.exit(main(['sweep']))"
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and 'pip install "fastsnn[sweep]"' in done.stderr and "Traceback" not in done.stderr
