from pathlib import Path

import pytest
import torch

from fastsnn.sweep import Cell, Network, Settings, default_out
from fastsnn.sweep.by_name import ATTACKS
from fastsnn.sweep.plan import device, networks, passes


def test_networks_and_cells_are_the_product_of_all_choices():
    settings = Settings(
        models=("sew_resnet18", "sew_resnet34"),
        seeds=(1, 2, 3),
        eps=(0, 2.5),
        steps=(7, 20),
        restarts=(1, 5),
        bn=("frozen", "drift"),
        surrogates=("atan:2", "sigmoid:4"),
    )
    found = networks(settings)
    assert len(found) == len(set(found)) == 2 * 2 * 3
    assert found[0] == Network("digits", "sew_resnet18", "max", 1)
    cells = [cell for cells in passes(settings, found[0]) for cell in cells]
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * (1 + 2 * 2), "FGSM has neither steps nor restarts"
    assert cells[:2] == [Cell(found[0], "fgsm", "frozen", "atan:2", 1, 1, eps) for eps in (0, 2.5)]


def test_a_stem_without_a_pool_makes_one_network_of_all_poolings():
    settings = Settings(stems=("imagenet", "cifar"), seeds=(1, 2))
    shapes = [(one.stem, one.pool, one.seed) for one in networks(settings)]
    published = [("imagenet", pool, seed) for pool in ("max", "avg") for seed in (1, 2)]
    assert shapes == [*published, ("cifar", "none", 1), ("cifar", "none", 2)]


def test_settings_that_came_later_move_no_folder():
    assert default_out(Settings(device="cpu")) == Path("runs", "digits-11270a5f")
    assert default_out(Settings(device="cpu", stems=("cifar",))) != default_out(Settings(device="cpu"))


def test_a_pass_holds_cells_that_differ_in_eps_only():
    settings = Settings(steps=(7, 20), eps=(0, 2, 4))
    for cells in passes(settings, networks(settings)[0]):
        assert [cell.eps for cell in cells] == [0, 2, 4]
        assert len({(cell.attack, cell.steps) for cell in cells}) == 1


def test_attacks_have_only_the_axes_that_they_take():
    settings = Settings(attacks=ATTACKS, steps=(7, 20), restarts=(1, 5), eps=(4,))
    found = [cell for (cell,) in passes(settings, networks(settings)[0])]
    how = {name: [(cell.steps, cell.restarts) for cell in found if cell.attack == name] for name in ATTACKS}
    both = [(7, 1), (7, 5), (20, 1), (20, 5)]
    assert how == {"fgsm": [(1, 1)], "pgd": both, "mim": both[::2], "apgd": both, "apgdt": both[::2]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"data": ("digit",)}, "Did you mean 'digits'"),
        ({"models": ("sew_resnet19",)}, "models is 'sew_resnet19'.*Did you mean 'sew_resnet1"),
        ({"stems": ("cifar10",)}, "stems is 'cifar10'.*Did you mean 'cifar'"),
        ({"models": ("vgg11",), "stems": ("imagenet", "cifar")}, "but vgg11 has no choice of stem"),
        ({"models": ()}, "models is .*at least one"),
        ({"models": "sew_resnet18"}, "as a tuple"),
        ({"pools": ("mean",)}, "pools is 'mean'"),
        ({"attacks": ("pgd", "pgd")}, "attacks names 'pgd' twice"),
        ({"attacks": ("pgdd",)}, "Did you mean 'pgd'"),
        ({"attacks": ("pgd", "apgd"), "steps": (7, 0)}, "steps has 0 with attacks='apgd'"),
        ({"eps": (-1,)}, "eps is -1"),
        ({"eps": (float("nan"),)}, "eps is nan"),
        ({"eps": (256,)}, "eps is 256 .*at most 255"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"steps": (-1,)}, "steps is -1"),
        ({"width": 0}, "width is 0"),
        ({"K": 17}, "K is 17"),
        ({"images": 0}, "images is 0"),
        ({"T": 2, "defences": ("none", "hire:periods=3")}, "has 'hire:periods=3', .* as many periods as T, which is 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": "big"}, "batch_size is 'big', expected one of 'auto'"),
        (
            {"batch_size": "auto", "bn": ("frozen", "batch")},
            "batch_size is 'auto' with bn='batch': results would depend",
        ),
        ({"bn": ("eval",)}, "bn is 'eval'"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"seeds": (-1,)}, "seeds is -1"),
        ({"restarts": (0,)}, "restarts is 0"),
        ({"surrogates": ("atan",)}, "surrogates has 'atan', expected a shape and its alpha"),
        ({"surrogates": ("atan:0",)}, "surrogates has 'atan:0'"),
        ({"surrogates": ("arctan:2",)}, "surrogates is 'arctan'.*Did you mean 'atan'"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"device": "cuda:x"}, "device is 'cuda:x'"),
        ({"device": "cuda:99"}, "torch sees .* CUDA devices"),
    ],
)
def test_bad_choices_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


def test_a_number_of_the_wrong_kind_is_refused():
    with pytest.raises(TypeError, match="epochs is '3'"):
        Settings(epochs="3")


def test_auto_takes_what_there_is():
    assert device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device("cpu") == torch.device("cpu")
