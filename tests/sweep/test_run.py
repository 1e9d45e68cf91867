from pathlib import Path

import pytest
import torch

from fastsnn import attacks, models, training
from fastsnn.functional import phase_encode
from fastsnn.sweep import Settings, run, weights
from fastsnn.sweep.progress import Silent
from fastsnn.sweep.run import _Test

from . import tiny


class Heard(Silent):
    """Remembers what it hears."""

    def __init__(self):
        self.stages, self.said = [], []

    def start(self, name, images):
        self.stages.append([name, images, 0])

    def advance(self, images, note=""):
        self.stages[-1][2] += images

    def say(self, sentence):
        self.said.append(sentence)


def rows(settings, progress=None, **options):
    return [row for done in run(settings, progress or Silent(), **options) for row in done.rows]


def settings(**changes):
    return Settings(**(tiny.SETTINGS | {"pools": ("max",)} | changes))


def test_rows_are_what_the_plain_loop_finds():
    chosen = settings(attacks=("fgsm", "pgd"), eps=(4, 16))
    found = {(row.cell.attack, row.cell.eps): row.correct for row in rows(chosen)}
    train_set, test_set = tiny.load("train"), tiny.load("test")
    torch.manual_seed(chosen.seed)
    net = models.sew_resnet18(pool="max", width=4)
    how = {"lr": chosen.lr, "schedule": chosen.schedule, "seed": chosen.seed}
    training.train(net, train_set.images, train_set.labels, epochs=1, batch_size=20, T=4, K=8, **how)
    seeds = torch.randint(2**63 - 1, (12,), generator=torch.Generator().manual_seed(chosen.seed))
    for eps in (4, 16):
        fgsm = pgd = 0
        for images, y, some in zip(test_set.images.split(5), test_set.labels.split(5), seeds.split(5), strict=True):
            x = phase_encode(images, 4, 8)
            generator = [torch.Generator().manual_seed(seed) for seed in some.tolist()]
            fgsm += training.count_correct(net, attacks.fgsm(net, x, y, eps=eps / 255), y)
            adv = attacks.pgd(net, x, y, eps=eps / 255, alpha=0.01, steps=2, generator=generator)
            pgd += training.count_correct(net, adv, y)
        assert found == found | {("fgsm", eps): fgsm, ("pgd", eps): pgd}


def test_eps_zero_is_the_clean_accuracy():
    found = rows(settings(eps=(0,)))
    assert [row.correct for row in found] == [row.clean_correct for row in found]
    net, _ = network_of(settings())
    test_set = tiny.load("test")
    x = phase_encode(test_set.images, 4, 8)
    assert torch.equal(attacks.fgsm(net, x, test_set.labels, eps=0.0), x)
    assert torch.equal(attacks.pgd(net, x, test_set.labels, eps=0.0, alpha=0.01, steps=2), x)
    assert training.count_correct(net, x, test_set.labels) == found[0].clean_correct


@pytest.mark.parametrize("precision", ["fp32", "fast"])
def test_no_batch_size_changes_a_row_or_an_adversarial_example(monkeypatch, precision):
    examples = []
    pgd = attacks.pgd

    def spy(*args, **how):
        found = pgd(*args, **how)
        examples[-1].append(torch.stack(found))
        return found

    monkeypatch.setattr(attacks, "pgd", spy)
    found = []
    for batch_size in (1, 5, 12, "auto"):
        examples.append([])
        found.append(rows(settings(T=10, precision=precision, batch_size=batch_size)))
    assert all(one == found[0] for one in found)
    assert [len(batches) for batches in examples] == [12, 3, 1, 1]
    whole = [torch.cat(batches, 2) for batches in examples]
    assert all(torch.equal(one, whole[0]) for one in whole)


def test_fewer_images_are_attacked_from_the_same_starts():
    few, all_of_them = (_Test(*images_and_labels(n), torch.device("cpu"), settings()).seeds for n in (7, 12))
    assert few == all_of_them[:7] and len({*all_of_them}) == 12


def images_and_labels(n):
    test_set = tiny.load("test")
    return test_set.images[:n], test_set.labels[:n]


def small_memory(monkeypatch, images):
    """Let networks run out of memory beyond so many images; return the list of the numbers they were given."""
    seen, forward = [], models.sew_resnet.SEWResNet.forward_sequence

    def limited(self, x):
        seen.append(x.shape[1])
        if x.shape[1] > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 bytes.")
        return forward(self, x)

    monkeypatch.setattr(models.sew_resnet.SEWResNet, "forward_sequence", limited)
    return seen


def test_auto_halves_the_batch_until_it_fits_and_finds_the_same(monkeypatch):
    expected = rows(settings())
    seen = small_memory(monkeypatch, 4)
    heard = Heard()
    assert rows(settings(batch_size="auto"), heard) == expected
    assert seen[:6] == [12, 6, 3, 3, 3, 3], "what fitted once is kept"
    assert all(done == images for _, images, done in heard.stages)
    assert sum(n > 4 for n in seen) == 2 + 2 * 2, "and two budgets of PGD ride as copies: 6, then 3, for each batch"


def test_auto_raises_where_not_even_one_image_fits_and_a_number_where_it_does_not(monkeypatch):
    rows(settings())
    small_memory(monkeypatch, 0)
    for batch_size in (5, "auto"):
        with pytest.raises(torch.OutOfMemoryError):
            rows(settings(batch_size=batch_size))


def network_of(chosen):
    """Return the network that a sweep cached, and the file it lies in."""
    origin = next(iter(run(chosen, Silent()))).weights
    net = models.sew_resnet18(pool="max", width=4)
    net.load_state_dict(weights.load(Path(origin["file"])))
    return net.eval(), origin


def test_a_row_does_not_depend_on_the_others():
    for bn in ("frozen", "drift"):
        together = {row.cell: row for row in rows(settings(bn=bn, eps=(2, 16)))}
        for attack in ("pgd", "fgsm"):
            alone = rows(settings(bn=bn, attacks=(attack,), eps=(16,)))
            assert alone == [together[alone[0].cell]]


@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
@pytest.mark.parametrize("precision", ["reference", "fp32", "fast"])
def test_every_way_to_attack_runs(bn, precision):
    found = rows(settings(bn=bn, precision=precision, eps=(0, 8)))
    assert len(found) == 4 and all(0 <= row.correct <= row.images == 12 for row in found)


def test_the_second_run_takes_its_weights_from_the_cache_and_finds_the_same():
    first, second = Heard(), Heard()
    assert rows(settings(), first) == rows(settings(), second)
    assert first.stages[0][0] == "sew_resnet18 max: train"
    assert not any("train" in name for name, *_ in second.stages)
    assert "weights from" in second.said[0]


def test_retraining_ignores_the_cache_and_finds_the_same():
    heard = Heard()
    assert rows(settings()) == rows(settings(), heard, retrain=True)
    assert heard.stages[0][0] == "sew_resnet18 max: train"


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"epochs": 2}, {"lr": 0.1}, {"width": 5}, {"pools": ("avg",)}, {"T": 5}]
)
def test_what_changes_the_weights_is_trained_anew(change):
    first, second = (next(iter(run(settings(**options), Silent()))).weights for options in ({}, change))
    assert first["file"] != second["file"] and not second["cached"]


@pytest.mark.parametrize("change", [{"eps": (1,)}, {"bn": "batch"}, {"steps": 1}, {"precision": "fast"}])
def test_what_only_changes_the_attack_is_not_trained_anew(change):
    next(iter(run(settings(), Silent())))
    assert next(iter(run(settings(**change), Silent()))).weights["cached"]


def test_a_corrupt_cached_file_is_said_and_trained_anew(cache):
    before = rows(settings())
    (file,) = cache.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    heard = Heard()
    assert rows(settings(), heard) == before
    assert str(file) in heard.said[0] and "Training again" in heard.said[0]
    assert weights.load(file).keys() == network_of(settings())[0].state_dict().keys()


def test_every_stage_tells_of_every_image():
    heard = Heard()
    rows(settings(images=7), heard)
    assert heard.stages == [
        ["sew_resnet18 max: train", 40, 40],
        ["sew_resnet18 max: clean", 7, 7],
        ["sew_resnet18 max: fgsm, 2 eps", 7, 7],
        ["sew_resnet18 max: pgd, 2 eps", 7, 7],
    ]


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    rows(settings())
    assert torch.equal(torch.get_rng_state(), before)
