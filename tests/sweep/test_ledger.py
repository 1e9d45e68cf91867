import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import numpy
import pytest

from fastsnn.sweep import Cell, Ledger, LedgerError, Network
from fastsnn.sweep.ledger import FILE, Outcome

NETWORK = Network("digits", "sew_resnet18", "max", 3407)
TRAINING = {"width": 16, "training": {"T": 10, "K": 8}}
DETERMINED = {"alpha": 0.01, "precision": "fp32"}


def cell(eps, attack="pgd"):
    return Cell(NETWORK, attack, "frozen", "atan:2", 7, 1, eps)


def outcome(correct, clean=None):
    correct = numpy.array(correct, bool)
    clean = numpy.ones(len(correct), bool) if clean is None else numpy.array(clean, bool)
    linf = numpy.linspace(0, 0.5, len(correct), dtype=numpy.float32)
    return Outcome(clean, correct, ~correct, linf)


def add(ledger, cells, outcomes):
    run = ledger.begin_run({"eps": [1]}, {"torch": "1"}, {"threads": 2})
    hashed = [(one, f"hash of {one}", DETERMINED) for one in cells]
    ledger.add(run, NETWORK, TRAINING, "weights", hashed, outcomes, 1.5)


def test_what_was_written_is_read(tmp_path):
    with Ledger.write(tmp_path) as ledger:
        add(ledger, [cell(4.0), cell(2.0)], [outcome([1, 0, 1]), outcome([1, 1, 1])])
        assert ledger.has(f"hash of {cell(4.0)}") and not ledger.has("another")
    with Ledger.read(tmp_path) as ledger:
        two, four = map(dict, ledger.results())
        assert (two["eps_255"], two["correct"], two["accuracy"], two["zero_gradients"]) == (2, 3, 100, 0)
        assert (four["eps_255"], four["correct"], four["images"], four["zero_gradients"]) == (4, 2, 3, 1)
        assert four["accuracy"] == pytest.approx(200 / 3) and four["clean_accuracy"] == 100
        assert ledger.samples(four["cell"]) == [(0, 1, 1, 0, 0.0), (1, 1, 0, 1, 0.25), (2, 1, 1, 0, 0.5)]
        (run,) = ledger.runs()
        assert run["settings"] == {"eps": [1]} and run["machine"] == {"threads": 2} and run["finished"] is None


def test_cells_of_one_call_are_there_all_or_none(tmp_path):
    with Ledger.write(tmp_path) as ledger:
        add(ledger, [cell(4.0)], [outcome([1, 0])])
        broken = outcome([1, 1])
        object.__setattr__(broken, "linf", numpy.array([0.0], numpy.float32))
        with pytest.raises(ValueError, match="shorter"):
            add(ledger, [cell(1.0), cell(2.0)], [outcome([1, 1]), broken])
        assert [row["eps_255"] for row in ledger.results()] == [4.0]
        assert sum(len(ledger.samples(number)) for number in range(10)) == 2
        add(ledger, [cell(1.0), cell(2.0)], [outcome([1, 1]), outcome([1, 1])])
        assert len(ledger.results()) == 3


def test_the_worst_case_is_taken_image_by_image(tmp_path):
    with Ledger.write(tmp_path) as ledger:
        add(ledger, [cell(4.0, "pgd"), cell(4.0, "fgsm")], [outcome([1, 0, 1, 1]), outcome([1, 1, 0, 1])])
        assert ledger.worst_case([1]) == (3, 4) and ledger.worst_case([2]) == (3, 4)
        assert ledger.worst_case([1, 2]) == (2, 4)


def test_a_second_run_on_one_ledger_is_refused_and_a_reader_is_not(tmp_path):
    with Ledger.write(tmp_path) as ledger:
        add(ledger, [cell(4.0)], [outcome([1, 0])])
        with pytest.raises(LedgerError, match="is being worked on by another run; wait for it"):
            Ledger.write(tmp_path)
        with Ledger.read(tmp_path) as reader:
            assert len(reader.results()) == 1
    with Ledger.write(tmp_path) as ledger:
        assert len(ledger.results()) == 1


def test_a_full_disk_loses_nothing_and_says_so(tmp_path):
    with Ledger.write(tmp_path) as ledger:
        add(ledger, [cell(4.0)], [outcome([1, 0])])
        pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
        ledger._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says what it says of a full disk
        with pytest.raises(LedgerError, match="is full; free some space and run the same command again"):
            add(ledger, [cell(1.0)], [outcome([1] * 100_000)])
        ledger._connection.execute("PRAGMA max_page_count = 1000000")
        assert [row["eps_255"] for row in ledger.results()] == [4.0]
        add(ledger, [cell(1.0)], [outcome([1] * 100_000)])
    with Ledger.read(tmp_path) as ledger:
        assert [row["images"] for row in ledger.results()] == [100_000, 2]


def test_a_ledger_of_another_version_is_refused_and_left_alone(tmp_path):
    Ledger.write(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (tmp_path / FILE).read_bytes()
    for opened in (Ledger.write, Ledger.read):
        with pytest.raises(LedgerError, match="is a ledger of version 99, this fastsnn writes and reads version 1"):
            opened(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_ledger_with_fewer_columns_and_settings_is_read_as_things_were_then_and_gets_the_new_columns(tmp_path):
    with Ledger.write(tmp_path) as ledger:
        add(ledger, [cell(4.0)], [outcome([1, 0])])  # TRAINING names none of what came later
    file = sqlite3.connect(tmp_path / FILE)
    file.executescript("DROP VIEW results; CREATE VIEW results AS SELECT id AS cell FROM cells;")
    file.close()
    with Ledger.read(tmp_path) as ledger:
        (row,) = ledger.results()
        found = {name: row[name] for name in ("coding", "defence", "stem", "optimizer", "flips", "train_precision")}
        assert list(found.values()) == ["phase", "none", "imagenet", "adam", "no", "fp32"]
    Ledger.write(tmp_path).close()
    file = sqlite3.connect(tmp_path / FILE)
    assert file.execute(f"SELECT {', '.join(found)} FROM results").fetchall() == [tuple(found.values())]
    file.close()


def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path):
    (tmp_path / FILE).write_bytes(b"something else, and precious" * 100)
    for opened in (Ledger.write, Ledger.read):
        with pytest.raises(LedgerError, match=r"it is no ledger, or damaged|what was finished before is saved"):
            opened(tmp_path)
    assert (tmp_path / FILE).read_bytes() == b"something else, and precious" * 100


def test_a_folder_without_a_ledger_is_no_sweep(tmp_path):
    with pytest.raises(LedgerError, match="is not the folder of a sweep"):
        Ledger.read(tmp_path)


@contextlib.contextmanager
def unwritable(folder):
    """Let nobody write to a folder in this block, not even root."""
    mode, root = folder.stat().st_mode, os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            (folder / "new").touch()
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(mode)


@pytest.fixture
def shared():
    """A folder that everybody can come to; those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_folder_that_cannot_be_written_to_is_refused_but_read(shared):
    with Ledger.write(shared) as ledger:
        add(ledger, [cell(4.0)], [outcome([1, 0])])
    with unwritable(shared):
        with pytest.raises(LedgerError, match=r"cannot be written to|readonly|unable to open"):
            Ledger.write(shared)
        with Ledger.read(shared) as ledger:
            assert len(ledger.results()) == 1


def test_what_a_killed_run_left_is_read_whole_or_refused_where_nobody_can_write(shared):
    (shared / "run").mkdir()
    with Ledger.write(shared / "run") as ledger:
        add(ledger, [cell(4.0)], [outcome([1, 0])])
        shutil.copytree(shared / "run", shared / "killed")  # its log is not in the file yet
    with unwritable(shared / "killed"), Ledger.read(shared / "killed") as ledger:
        assert len(ledger.results()) == 1
    (shared / "killed" / f"{FILE}-shm").unlink()
    with unwritable(shared / "killed"), pytest.raises(LedgerError, match="copy the folder to where you can write"):
        Ledger.read(shared / "killed")


def test_whatever_is_asked_of_a_damaged_ledger_is_a_sentence(tmp_path):
    with Ledger.write(tmp_path) as ledger:
        add(ledger, [cell(4.0)], [outcome([1, 0])])
    with sqlite3.connect(tmp_path / FILE) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:size] + b"\xff" * (len(content) - size))
    with Ledger.read(tmp_path) as ledger:
        questions = (
            lambda: ledger.has("a"),
            lambda: ledger.weights_of({}),
            lambda: ledger.runs(),
            lambda: ledger.description(1),
            lambda: ledger.samples(1),
            lambda: ledger.worst_case([1]),
        )
        for question in questions:
            with pytest.raises(LedgerError, match="it is damaged; name another --out"):
                question()
