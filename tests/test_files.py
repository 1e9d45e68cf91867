import os
import signal
import subprocess
import sys

import pytest

from fastsnn import files

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from fastsnn import files

os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files.write(Path(sys.argv[1]), b"new")
"""


def test_content_replaces_content(tmp_path):
    for content in (b"one", b"two"):
        files.write(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_whoever_is_killed_while_writing_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    died = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path / "a")], timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_bytes() == b"old"
    files.write(tmp_path / "a", b"newer")
    assert (tmp_path / "a").read_bytes() == b"newer"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'a'}'"):
        files.write(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]
