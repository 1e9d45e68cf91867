import json
from dataclasses import asdict

import pytest

from fastsnn.sweep import Settings, plan_file
from fastsnn.sweep.plan import DEFAULTS


def test_every_setting_has_a_key(tmp_path):
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in DEFAULTS.items()}
    lines = [f"{plan_file.flag(name)} = {json.dumps(value)}" for name, value in values.items() if value is not None]
    (tmp_path / "plan.toml").write_text("\n".join(lines))
    assert asdict(Settings(**plan_file.read(tmp_path / "plan.toml"))) == asdict(Settings())


def test_underscores_and_single_values_are_taken(tmp_path):
    (tmp_path / "plan.toml").write_text('train_batch_size = 7\nweight-decay = 0.5\npool = "avg"\nseed = 4')
    expected = {"train_batch_size": 7, "weight_decay": 0.5, "pools": ("avg",), "seeds": (4,)}
    assert plan_file.read(tmp_path / "plan.toml") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 1", "Did you mean 'seed'"),
        ("seed = ", "is not TOML"),
        ("batch-size = 2\nbatch_size = 3", "has both 'batch-size' and 'batch_size', which are one key"),
        ('engine = "ray"', r"has 'engine', expected in the command only: --engine says how to run, not what"),
        ("dry_run = true", "has 'dry_run', expected in the command only: --dry-run "),
    ],
)
def test_what_is_wrong_is_refused(tmp_path, text, message):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        plan_file.read(tmp_path / "plan.toml")
