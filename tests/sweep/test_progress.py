import io
import sys

import pytest

from fastsnn.sweep.progress import Bars, Lines, Silent


def drive(progress):
    with progress:
        progress.start("net: train", 10)
        progress.advance(4, "loss 1.000")
        progress.advance(6, "loss 0.500")
        progress.finish("loss 0.750")
        progress.say("a sentence")


def test_lines_tell_rate_and_time_left():
    text = io.StringIO()
    drive(Lines(text, every_s=0))
    first, second, third, said = text.getvalue().splitlines()
    assert first == "net: train: 10 images"
    assert second.startswith("net: train: 4/10 images, ") and " images/s, " in second
    assert second.endswith(" s left, loss 1.000")
    assert third.startswith("net: train: done in ") and third.endswith(" s, loss 0.750")
    assert said == "a sentence"


def test_lines_are_few_where_work_is_quick():
    text = io.StringIO()
    drive(Lines(text))
    assert len(text.getvalue().splitlines()) == 3


def test_bars_tell_the_same(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    text = Terminal()
    monkeypatch.setattr(sys, "stderr", text)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    drive(Bars())
    shown = text.getvalue()
    assert all(part in shown for part in ("net: train", "10/10", "img/s", "loss 0.750", "a sentence"))


@pytest.mark.parametrize("name", ["start", "advance", "finish", "say"])
def test_every_kind_of_progress_hears_everything(name):
    assert name in vars(Silent) and name in vars(Lines) and name in vars(Bars)


def test_silence_prints_nothing(capsys):
    drive(Silent())
    assert capsys.readouterr() == ("", "")
