import pytest
import torch

from fastsnn.sweep import Cell, Settings, stages
from fastsnn.sweep.plan import device


def test_cells_are_the_product_of_all_choices():
    settings = Settings(models=("sew_resnet18", "sew_resnet34"), pools=("max", "avg"), eps=(0, 2.5))
    cells = [cell for stage in stages(settings) for cell in stage.cells]
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2
    assert cells[:3] == [
        Cell("sew_resnet18", "max", "fgsm", 0),
        Cell("sew_resnet18", "max", "fgsm", 2.5),
        Cell("sew_resnet18", "max", "pgd", 0),
    ]


def test_a_network_is_trained_and_scored_before_it_is_attacked():
    works = [stage.work for stage in stages(Settings(models=("sew_resnet18",), pools=("max", "avg")))]
    assert works == ["train", "clean", "fgsm", "pgd"] * 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"data": "digit"}, "Did you mean 'digits'"),
        ({"models": ("sew_resnet19",)}, "models is 'sew_resnet19'.*Did you mean 'sew_resnet1"),
        ({"models": ()}, "models is .*at least one"),
        ({"models": "sew_resnet18"}, "as a tuple"),
        ({"pools": ("mean",)}, "pools is 'mean'"),
        ({"attacks": ("pgd", "pgd")}, "attacks names 'pgd' twice"),
        ({"eps": (-1,)}, "eps is -1"),
        ({"eps": (float("nan"),)}, "eps is nan"),
        ({"eps": (256,)}, "eps is 256 .*at most 255"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"steps": -1}, "steps is -1"),
        ({"width": 0}, "width is 0"),
        ({"K": 17}, "K is 17"),
        ({"images": 0}, "images is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": "big"}, "batch_size is 'big', expected one of 'auto'"),
        ({"batch_size": "auto", "bn": "batch"}, "batch_size is 'auto' with bn='batch': results would depend"),
        ({"bn": "eval"}, "bn is 'eval'"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"seed": -1}, "seed is -1"),
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
