import io
import json
import sys

import pytest

from fastsnn.sweep.progress import Bars, JsonLines, Lines, Silent


def drive(progress):
    with progress:
        progress.cells(4)
        progress.start("net: train", 10)
        progress.advance(4, "loss 1.000")
        progress.advance(6, "loss 0.500")
        progress.finish("loss 0.750")
        progress.cells_done(3)
        progress.say("a sentence")


def test_lines_tell_rate_and_time_left():
    text = io.StringIO()
    drive(Lines(text, every_s=0))
    first, second, third, saved, said = text.getvalue().splitlines()
    assert first == "net: train: 10 images"
    assert second.startswith("net: train: 4/10 images, ") and " images/s, " in second
    assert second.endswith(" s left, loss 1.000")
    assert third.startswith("net: train: done in ") and third.endswith(" s, loss 0.750")
    assert saved == "3/4 cells saved" and said == "a sentence"


def test_json_has_an_object_per_event():
    text = io.StringIO()
    drive(JsonLines(text))
    events = [json.loads(line) for line in text.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["cells", "start", "advance", "advance", "finish", "saved", "say"]
    assert events[2] == events[2] | {"stage": "net: train", "images": 4, "note": "loss 1.000"}
    assert events[5]["cells"] == 3 and events[0]["total"] == 4
    assert all(event["seconds"] >= 0 for event in events)


def test_lines_are_few_where_work_is_quick():
    text = io.StringIO()
    drive(Lines(text))
    assert len(text.getvalue().splitlines()) == 4


def terminal(monkeypatch):
    """Return what a terminal of 80 columns and 12 rows is sent from now on."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    text = Terminal()
    monkeypatch.setattr(sys, "stderr", text)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "12")
    return text


def test_bars_tell_the_same(monkeypatch):
    sent = terminal(monkeypatch)
    drive(Bars())
    shown = sent.getvalue()
    assert all(part in shown for part in ("net: train: done in", "cells saved", "3/4", "loss 0.750", "a sentence"))


def test_the_bars_of_many_passes_are_all_cells_and_the_running_one(monkeypatch):
    sent, bars = terminal(monkeypatch), Bars()
    with bars:
        bars.cells(50)
        for i in range(25):
            bars.start(f"pass {i}", 10)
            if i < 24:
                bars.finish("50.0 %")
                bars.cells_done(2)
        sent.truncate(0)
        bars.advance(10)
        bars.bars.refresh()
        shown = sent.getvalue()
    assert all(part in shown for part in ("cells saved", "48/50", "pass 24", "10/10", "img/s"))
    assert "pass 23" not in shown and "..." not in shown


@pytest.mark.parametrize("name", ["cells", "cells_done", "start", "advance", "finish", "say"])
def test_every_kind_of_progress_hears_everything(name):
    assert name in vars(Silent) and all(name in vars(kind) for kind in (Lines, Bars, JsonLines))


def test_silence_prints_nothing(capsys):
    drive(Silent())
    assert capsys.readouterr() == ("", "")
