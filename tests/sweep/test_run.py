import tempfile
from pathlib import Path

import numpy
import pytest
import torch

from fastsnn import attacks, models, training
from fastsnn.functional import phase_encode
from fastsnn.sweep import Ledger, Settings, run, weights
from fastsnn.sweep.attacker import Attacker
from fastsnn.sweep.engines import engine
from fastsnn.sweep.plan import networks, passes
from fastsnn.sweep.progress import Silent

from . import tiny


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every sweep of a test has a new ledger in here, unless it says otherwise."""
    monkeypatch.chdir(tmp_path)


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

    def cells(self, total):
        self.total = total

    def cells_done(self, count):
        self.done = getattr(self, "done", 0) + count


def everything(settings, progress=None, folder=None, **options):
    """Run a sweep, in a new folder if none is named; return what was done, and the ledger's samples by cell."""
    folder = folder or Path(tempfile.mkdtemp(dir="."))
    with Ledger.write(folder) as ledger, engine("local", settings) as workers:
        number = ledger.begin_run({}, {}, {})
        done = list(run(settings, ledger, number, workers, progress or Silent(), **options))
        rows = [dict(row) for row in ledger.results()]
        samples = {tuple(row[name] for name in KEY): ledger.samples(row["cell"]) for row in rows}
    return done, rows, samples


KEY = ("pool", "seed", "attack", "bn", "surrogate", "steps", "restarts", "eps_255")


def samples(settings, progress=None, **options):
    return everything(settings, progress, **options)[2]


def settings(**changes):
    return Settings(**(tiny.SETTINGS | {"pools": ("max",)} | changes))


def test_samples_are_what_the_plain_loop_finds():
    chosen = settings(attacks=("fgsm", "pgd"), eps=(4, 16))
    _, rows, found = everything(chosen)
    train_set, test_set = tiny.load("train"), tiny.load("test")
    torch.manual_seed(3407)
    net = models.sew_resnet18(pool="max", width=4)
    how = {"lr": chosen.lr, "schedule": chosen.schedule, "seed": 3407}
    training.train(net, train_set.images, train_set.labels, epochs=1, batch_size=20, T=4, K=8, **how)
    seeds = torch.randint(2**63 - 1, (12,), generator=torch.Generator().manual_seed(3407))
    for eps in (4, 16):
        expected = {"fgsm": [], "pgd": []}
        for images, y, some in zip(test_set.images.split(5), test_set.labels.split(5), seeds.split(5), strict=True):
            x = phase_encode(images, 4, 8)
            generator = [torch.Generator().manual_seed(seed) for seed in some.tolist()]
            crafted = {
                "fgsm": attacks.fgsm(net, x, y, eps=eps / 255),
                "pgd": attacks.pgd(net, x, y, eps=eps / 255, alpha=0.01, steps=2, generator=generator),
            }
            clean = net(x).argmax(1) == y
            for attack, adv in crafted.items():
                columns = (clean, net(adv).argmax(1) == y, (adv - x).abs().amax((0, 2, 3, 4)))
                expected[attack] += zip(*(column.tolist() for column in columns), strict=True)
        for attack, lines in expected.items():
            key = ("max", 3407, attack, "frozen", "atan:2", 2 if attack == "pgd" else 1, 1, eps)
            assert [(line[1], line[2], line[4]) for line in found[key]] == lines
            (row,) = (row for row in rows if (row["attack"], row["eps_255"]) == (attack, eps))
            assert row["correct"] == sum(right for _, right, _ in lines)
            assert row["accuracy"] == pytest.approx(100 * row["correct"] / 12)


@pytest.mark.parametrize("attack", ["mim", "apgd", "apgdt"])
def test_other_attacks_find_what_a_call_finds(attack, monkeypatch):
    """Each image of the sweep has the outcome that one call on the same network and generators has."""
    seen = []

    def look(network, x, y, **how):
        seen.append((network, x, y, how))
        return real(network, x, y, **how)

    real = getattr(attacks, attack)
    monkeypatch.setattr(attacks, attack, look)
    _, rows, found = everything(settings(attacks=(attack,), eps=(0, 16), restarts=(2,)))
    restarts = 2 if attack == "apgd" else 1
    lines = found["max", 3407, attack, "frozen", "atan:2", 2, restarts, 16]
    assert len(found) == 2 and len(seen) == 3 and len(lines) == 12
    sizes = torch.cat([adv_size(real, *one) for one in seen])
    assert torch.equal(torch.tensor([line[4] for line in lines]), sizes)
    assert all(row["alpha"] == (0.01 if attack == "mim" else None) for row in rows)
    takes = {"mim": {"alpha": 0.01}, "apgd": {"restarts": 2}, "apgdt": {}}[attack] | {"steps": 2, "eps": [16 / 255]}
    assert all(takes.items() <= how.items() for _, _, _, how in seen)


def adv_size(attack, network, x, y, how):
    """Return the largest change of every image, for the first budget, from the same generators."""
    if "generator" in how:
        for generator in how["generator"]:
            generator.manual_seed(generator.initial_seed())
    (adv,) = attack(network, x, y, **how)
    return (adv - x).abs().amax((0, 2, 3, 4))


def test_eps_zero_is_the_clean_accuracy():
    found = samples(settings(eps=(0,)))
    for lines in found.values():
        assert all(clean == correct and linf == 0 for _, clean, correct, _, linf in lines)


def test_a_gradient_of_zero_is_noted():
    chosen = settings(eps=(4,), surrogates=("atan:2", "rectangle:1000"))
    found = samples(chosen)
    zero = {key: [line[3] for line in lines] for key, lines in found.items() if key[2] == "fgsm"}
    wide, narrow = (next(lines for key, lines in zero.items() if name in key) for name in chosen.surrogates)
    assert not any(wide) and all(narrow), "hardly a voltage comes within 1/2000 of the threshold"
    fgsm = next(lines for key, lines in found.items() if key[2] == "fgsm" and "rectangle:1000" in key)
    assert all(linf == 0 and clean == correct for _, clean, correct, _, linf in fgsm)


@pytest.mark.parametrize("precision", ["fp32", "fast"])
def test_no_batch_size_changes_a_sample_or_an_adversarial_example(monkeypatch, precision):
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
        found.append(samples(settings(T=10, precision=precision, batch_size=batch_size)))
    assert all(one == found[0] for one in found)
    assert [len(batches) for batches in examples] == [12, 3, 1, 1]
    whole = [torch.cat(batches, 2) for batches in examples]
    assert all(torch.equal(one, whole[0]) for one in whole)


@pytest.mark.parametrize("bn", ["frozen", "batch"])
def test_shards_change_nothing(bn):
    chosen = settings(bn=(bn,), eps=(0, 8))
    (network,) = networks(chosen)
    done, _, _ = everything(chosen)
    state = weights.load(Path(done[0].weights["file"]))
    for cells in passes(chosen, network):
        attacker = Attacker(chosen, torch.device("cpu"))
        attacker.take(network, state)
        whole = attacker.attack(cells, range(12))
        parts = [attacker.attack(cells, part) for part in (range(10, 12), range(5), range(5, 10))]
        for i, outcome in enumerate(whole):
            for name, value in vars(outcome).items():
                together = [getattr(parts[k][i], name) for k in (1, 2, 0)]
                assert numpy.array_equal(value, numpy.concatenate(together)), name


def test_fewer_images_are_attacked_from_the_same_starts():
    few, all_of_them = samples(settings(images=7)), samples(settings())
    assert {key: lines[:7] for key, lines in all_of_them.items()} == few


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
    expected = samples(settings())
    seen = small_memory(monkeypatch, 4)
    heard = Heard()
    assert samples(settings(batch_size="auto"), heard) == expected
    assert seen[:4] == [12, 6, 3, 3], "what fitted once is kept"
    assert 12 not in seen[1:] and all(done == images for _, images, done in heard.stages)


def test_auto_raises_where_not_even_one_image_fits_and_a_number_where_it_does_not(monkeypatch):
    samples(settings())
    small_memory(monkeypatch, 0)
    for batch_size in (5, "auto"):
        with pytest.raises(torch.OutOfMemoryError):
            samples(settings(batch_size=batch_size))


def origin_of(chosen):
    """Return where a sweep has its weights from."""
    return everything(chosen)[0][0].weights


def test_a_cell_does_not_depend_on_the_others():
    for bn in ("frozen", "drift"):
        together = samples(settings(bn=(bn,), eps=(2, 16), restarts=(1, 2)))
        for attack in ("pgd", "fgsm"):
            alone = samples(settings(bn=(bn,), attacks=(attack,), eps=(16,)))
            ((key, lines),) = alone.items()
            assert lines == together[key]


@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
@pytest.mark.parametrize("precision", ["reference", "fp32", "fast"])
def test_every_way_to_attack_runs(bn, precision):
    found = samples(settings(bn=(bn,), precision=precision, eps=(0, 8)))
    assert len(found) == 4 and all(len(lines) == 12 for lines in found.values())


def test_the_second_run_takes_its_weights_from_the_cache_and_finds_the_same():
    first, second = Heard(), Heard()
    assert samples(settings(), first) == samples(settings(), second)
    assert first.stages[0][0] == "sew_resnet18 max 3407: train"
    assert not any("train" in name for name, *_ in second.stages)
    assert "weights from" in second.said[0]


def test_retraining_ignores_the_cache_and_finds_the_same():
    heard = Heard()
    assert samples(settings()) == samples(settings(), heard, retrain=True)
    assert heard.stages[0][0] == "sew_resnet18 max 3407: train"


def test_what_is_in_the_ledger_is_not_done_again(tmp_path):
    (tmp_path / "a").mkdir()
    heard, again, more = Heard(), Heard(), Heard()
    _, _, first = everything(settings(eps=(4,)), heard, tmp_path / "a")
    done, _, second = everything(settings(eps=(4,)), again, tmp_path / "a")
    assert second == first and done == [] and again.stages == []
    assert (heard.done, heard.total, again.done, again.total) == (2, 2, 2, 2)
    _, _, third = everything(settings(eps=(4, 16)), more, tmp_path / "a")
    assert third == samples(settings(eps=(4, 16))) and first.items() <= third.items()
    assert [name for name, *_ in more.stages] == [f"sew_resnet18 max 3407: {a}, eps 16" for a in ("fgsm", "pgd-2")]


@pytest.mark.parametrize("change", [{"steps": (3,)}, {"alpha": 0.02}, {"precision": "fast"}, {"images": 11}])
def test_what_changes_a_result_is_another_cell(tmp_path, change):
    (tmp_path / "a").mkdir()
    chosen = {"attacks": ("pgd",), "eps": (4,)}
    everything(settings(**chosen), folder=tmp_path / "a")
    heard = Heard()
    assert len(everything(settings(**chosen, **change), heard, tmp_path / "a")[1]) == 2
    steps = change.get("steps", (2,))[0]
    assert [name for name, *_ in heard.stages] == [f"sew_resnet18 max 3407: pgd-{steps}, eps 4"]


@pytest.mark.parametrize(("kernels", "cells"), [(["avx2"], 1), (None, 2)], ids=["cpu", "gpu"])
def test_a_cell_is_of_its_workers_arithmetic_and_on_a_gpu_of_the_batch_size(tmp_path, kernels, cells):
    chosen = {"attacks": ("fgsm",), "eps": (4,)}
    everything(settings(**chosen), folder=tmp_path)
    with Ledger.write(tmp_path) as ledger:
        for batch_size in (5, 12):
            workers = engine("local", settings(**chosen, batch_size=batch_size))
            workers.arithmetic = {"torch": torch.__version__, "device": "of a worker elsewhere", "kernels": kernels}
            assert list(run(workers._attacker.settings, ledger, 1, workers, Silent())) or batch_size == 12
        assert len(ledger.results()) == 1 + cells


def test_every_pass_of_a_sweep_has_a_name_of_its_own():
    heard = Heard()
    axes = {"bn": ("frozen", "batch"), "surrogates": ("atan:2", "sigmoid:4"), "steps": (1, 2), "restarts": (1, 2)}
    samples(settings(images=2, **axes), heard)
    names = [name for name, *_ in heard.stages]
    assert len(set(names)) == len(names) == 1 + 2 * 2 * (1 + 2 * 2)
    assert names[-1] == "sew_resnet18 max 3407: pgd-2, 2 restarts, bn batch, sigmoid:4, 3 eps"


def test_other_weights_are_another_network(tmp_path):
    (tmp_path / "a").mkdir()
    chosen = settings(attacks=("fgsm",), eps=(4,))
    origin = everything(chosen, folder=tmp_path / "a")[0][0].weights
    state = weights.load(Path(origin["file"]))
    weights.save(Path(origin["file"]), {name: 2 * tensor for name, tensor in state.items()}, origin["description"])
    assert everything(chosen, folder=tmp_path / "a")[0] == [], "the ledger knows what that training gave"
    _, rows, _ = everything(settings(attacks=("fgsm",), eps=(4, 8)), folder=tmp_path / "a")
    assert len(rows) == 3 and len({row["network"] for row in rows}) == 2


@pytest.mark.parametrize(
    "change", [{"seeds": (1,)}, {"epochs": 2}, {"lr": 0.1}, {"width": 5}, {"pools": ("avg",)}, {"T": 5}]
)
def test_what_changes_the_weights_is_trained_anew(change):
    first, second = origin_of(settings()), origin_of(settings(**change))
    assert first["file"] != second["file"] and not second["cached"]


@pytest.mark.parametrize("change", [{"eps": (1,)}, {"bn": ("batch",)}, {"steps": (1,)}, {"precision": "fast"}])
def test_what_only_changes_the_attack_is_not_trained_anew(change):
    origin_of(settings())
    assert origin_of(settings(**change))["cached"]


def test_a_corrupt_cached_file_is_said_and_trained_anew(cache):
    before = samples(settings())
    (file,) = cache.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    heard = Heard()
    assert samples(settings(), heard) == before
    assert str(file) in heard.said[0] and "Training again" in heard.said[0]
    assert weights.load(file)


def test_every_stage_tells_of_every_image_and_every_cell():
    heard = Heard()
    samples(settings(images=7), heard)
    assert heard.stages == [
        ["sew_resnet18 max 3407: train", 40, 40],
        ["sew_resnet18 max 3407: fgsm, 3 eps", 7, 7],
        ["sew_resnet18 max 3407: pgd-2, 3 eps", 7, 7],
    ]
    assert heard.done == heard.total == 6


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    samples(settings())
    assert torch.equal(torch.get_rng_state(), before)
