"""What tests of several ops are run with."""

import pytest

from fastsnn.ops import library


@pytest.fixture(params=[*library.instruction_sets(), "no library"])
def instruction_set(request, monkeypatch):
    if request.param == "no library":
        monkeypatch.setattr(library, "unavailable", lambda: "not built")
        yield
    else:
        library.use_instruction_set(request.param)
        yield
        library.use_instruction_set(library.instruction_sets()[0])
