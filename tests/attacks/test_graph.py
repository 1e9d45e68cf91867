"""Recorded steps on a CPU, by its own tape, and by a recorder that stands in for CUDA graphs: it does the step again.

What a graph adds to that is in tests/test_gpu.py; what a tape records, in tests/ops/test_tape.py.
"""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import fastsnn
from fastsnn.attacks import PGD, fgsm, mim, pgd, recordings
from fastsnn.attacks.recorders import CpuTape
from fastsnn.engine import batch_size, prepare
from fastsnn.ops import tape

from ..spikingjelly_networks import batch

HOW = {"eps": 6 / 255, "alpha": 0.01, "steps": 4}


class Again:
    """Replays a step by doing it again, and counts."""

    most_samples, only_rearranged, may_count, worth_it, fails_for_good, bytes = 512, False, False, None, True, 0

    def __init__(self):
        self.warmed = self.captured = self.replayed = 0

    def warm_up(self, step):
        self.warmed += 1
        step()

    def capture(self, step):
        self.captured += 1

        def replay():
            self.replayed += 1
            step()

        return replay

    def counts(self):
        return self.captured, self.replayed


class Counted(Again):
    """The tape of a CPU, which counts, and also takes steps that are not worth it."""

    def warm_up(self, step):
        self.warmed += 1
        self.tape = CpuTape()
        self.tape.warm_up(step)
        self.bytes = self.tape.bytes

    def capture(self, step):
        return super().capture(self.tape.capture(step))


@pytest.fixture(params=[Again, Counted], ids=["again", "tape"])
def recorder(monkeypatch, request):
    recorder = request.param()
    monkeypatch.setattr(recordings, "recorder_on", lambda device: recorder)
    return recorder


@pytest.fixture
def recorded(net, recorder):
    """Return a network whose step on batches of 4 is recorded."""
    for _ in range(2):
        attack(net, *batch(B=4))
    assert recorder.counts() == (1, 2)
    return net


def attack(net, x, y, seed=0, **how):
    return pgd(net, x, y, generator=torch.Generator().manual_seed(seed), **(HOW | how))


def assert_as_without_graphs(net, x, y, **how):
    """Attack the network and a copy, and compare all bits: results, layouts, statistics."""
    other = copy.deepcopy(net)
    results, expected = attack(net, x, y, **how), attack(other, x, y, graph=None, **how)
    listed = isinstance(results, list)
    for a, b in zip(results if listed else [results], expected if listed else [expected], strict=True):
        assert torch.equal(a, b) and a.stride() == b.stride()
        assert not torch.equal(a, x)
    for (name, a), b in zip(net.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b), name


# The same bits


BUDGETS = {
    "a number": ({"eps": 0.02}, {"eps": 0.1, "alpha": 0.03}),
    "one for each sample": (
        {"eps": torch.tensor([0.0, 0.01, 0.1])},
        {"eps": torch.tensor([0.2, 0.1, 0.03]), "alpha": torch.tensor([0.1, 0.01, 0.02])},
    ),
    "a list": ({"eps": [0.02, 0.1]}, {"eps": [torch.tensor([0.2, 0.1, 0.03]), 0.01], "alpha": 0.02}),
    "restarts": ({"restarts": 2}, {"restarts": 2, "eps": [0.02, 0.1]}),
}


@pytest.mark.parametrize("budgets", BUDGETS)
@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
@pytest.mark.parametrize("precision", ["reference", "fp32", "fast"])
def test_one_recording_serves_other_budgets_steps_inputs_and_labels(net, recorder, precision, bn, budgets):
    first, second = BUDGETS[budgets]
    for i, how in enumerate((first, first, second, first | {"steps": 5}, second | {"steps": 1})):
        assert_as_without_graphs(net, *batch(B=3, seed=i), seed=i, bn=bn, precision=precision, **how)
    assert recorder.replayed > 4
    assert recorder.captured == 1


def test_targets_and_surrogates_do_not_share_a_recording(net, recorder):
    x, y = batch(B=4)
    for how in ({}, {"targeted": True}, {"surrogate": "triangle:1"}, {"targeted": True}, {}):
        for _ in range(3):
            assert_as_without_graphs(net, x, y, **how)
    assert recorder.captured == 3  # each has its own, which is there when it comes again


def test_other_balls_and_momentum_run_as_they_are(net, recorder):
    x, y = batch(B=4)
    for _ in range(3):
        attack(net, x, y, norm="l2")
        mim(net, x, y, **HOW)
    assert recorder.counts() == (0, 0)


@pytest.mark.parametrize("engine", ["auto", None])
def test_images_in_any_layout_have_the_bits_of_steps_one_by_one(net, recorder, engine):
    clf = fastsnn.Classifier(net, fastsnn.nn.PhaseEncoder(T=4))
    images, y = torch.rand(3, 3, 32, 32), torch.arange(3)
    for x in (images, images.flip(0), images.contiguous(memory_format=torch.channels_last), images.mT.contiguous().mT):
        assert_as_without_graphs(clf, x, y, engine=engine)
        assert_as_without_graphs(clf, x, y, engine=engine, random_start=False)
    assert recorder.captured == 1


def test_a_channels_last_sequence_keeps_its_layout(net, recorder):
    x, y = batch(B=4)
    x = fastsnn.nn.layers.channels_last(x)
    for samples in (4, 4, 4, 3):
        assert_as_without_graphs(net, fastsnn.nn.layers.channels_last(x[:, :samples]), y[:samples])
    assert recorder.counts() == (1, 2 + 4 + 4)


def test_a_prepared_network_and_the_class_replay_as_well(net, recorder):
    prepared, (x, y) = prepare(net), batch()
    expected = pgd(net, x, y, random_start=False, graph=None, **HOW)
    attack = PGD(prepared, **HOW, random_start=False)
    assert all(torch.equal(attack(x, y), expected) for _ in range(3))
    assert recorder.counts() == (1, 2 + 4)


def test_replays_leave_results_of_earlier_attacks_alone(recorded):
    x, y = batch(B=4)
    adv = attack(recorded, x, y)
    kept = adv.clone()
    attack(recorded, *batch(B=4, seed=5), eps=0.3, alpha=0.1)
    assert torch.equal(adv, kept)


def test_random_numbers_and_the_caller_s_tensors_stay_as_they_are(recorded):
    x, y = batch(B=4)
    before, state = (x.clone(), y.clone()), torch.get_rng_state()
    attack(recorded, x, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


# Torch's operators alone, as in a CUDA graph: no Python between them


class Tape(TorchDispatchMode):
    """Notes operators with the very tensors they read and write, and does them again."""

    def __init__(self):
        super().__init__()
        self.calls, self.before = [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.is_mutable:
            self.before.setdefault(id(args[0]), (args[0], args[0].clone()))
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def undo(self):
        for tensor, value in self.before.values():
            tensor.copy_(value)

    def play(self):
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(*map(torch.utils._pytree.tree_leaves, (out, again)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():  # else a view, or in place
                    old.copy_(new)


class Taping(Again):
    def capture(self, step):
        self.captured += 1
        self.tape = Tape()
        with self.tape:
            step()
        return torch.no_grad()(self.play)

    def play(self):
        if not self.replayed:
            self.tape.undo()  # a capture computes nothing
        self.replayed += 1
        self.tape.play()


@pytest.fixture
def taping(monkeypatch):
    taping = Taping()
    monkeypatch.setattr(recordings, "recorder_on", lambda device: taping)
    return taping


@pytest.mark.parametrize("how", [{"engine": None}, {"precision": "reference"}], ids=str)
def test_operators_alone_do_the_step(net, taping, how):
    for seed, eps in enumerate((0.02, 0.02, 0.1, torch.tensor([0.1, 0.0, 0.2, 0.03]))):
        assert_as_without_graphs(net, *batch(B=4, seed=seed), seed=seed, eps=eps, alpha=0.02 * (seed + 1), **how)
    with torch.no_grad():
        for tensor in (net.conv1.weight, net.layer2[0].bn1.running_mean, net.fc.weight):
            tensor.mul_(1.1)
    assert_as_without_graphs(net, *batch(B=4), **how)
    assert taping.counts() == (1, 2 + 4 + 4 + 4)


@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
@pytest.mark.parametrize("how", [{}, {"engine": None}, {"precision": "reference"}, {"precision": "fast"}], ids=str)
def test_a_step_waits_for_no_value(net, taping, monkeypatch, how, bn):
    monkeypatch.setattr(taping, "play", lambda: None)  # kernels that are called past the dispatcher are on no tape
    for _ in range(2):
        attack(net, *batch(B=4), bn=bn, steps=4, **how)
    names = {func._schema.name for func, *_ in taping.tape.calls}
    assert "fastsnn::attack_step" in names
    assert not names & {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::item"}


# When


def test_a_cpu_records_what_the_engine_computes_of_batches_up_to_128(net):
    for how in ({"engine": None}, {"precision": "reference"}):
        for _ in range(3):
            attack(net, *batch(), **how)
    for _ in range(2):
        attack(net, *batch(B=129), steps=3)
    assert net not in recordings.of_networks
    for _ in range(3):
        attack(net, *batch(B=128), steps=3)
    assert [samples for _, samples in recordings.of_networks[net].kept] == [128]


def test_a_recording_is_made_at_the_second_attack_and_used_from_the_third(net, recorder):
    seen = []
    for _ in range(3):
        attack(net, *batch())
        seen.append((recorder.warmed, *recorder.counts()))
    assert seen == [(0, 0, 0), (1, 1, 2), (1, 1, 6)]


def test_too_few_steps_record_nothing_but_use_what_is_there(net, recorder):
    for steps in (0, 1, 2, 2):
        attack(net, *batch(), steps=steps)
    assert recorder.counts() == (0, 0)
    for _ in range(2):
        attack(net, *batch(), steps=3)
    assert recorder.counts() == (1, 1)
    for steps in (0, 1, 2):
        assert_as_without_graphs(net, *batch(), random_start=steps == 0, steps=steps)
    assert recorder.counts() == (1, 1 + 1 + 2)


def test_one_gradient_is_not_worth_a_recording(net, recorder):
    for _ in range(3):
        fgsm(net, *batch(), eps=0.1)
    assert recorder.counts() == (0, 0)


@pytest.mark.parametrize("how", [{"graph": None}, {"bn": "drift", "cumulative": True}])
def test_what_may_not_or_cannot_be_recorded_runs_as_it_is(net, recorder, how):
    how = dict(how)
    if how.pop("cumulative", False):
        net.bn1.momentum = None
    for _ in range(3):
        attack(net, *batch(), **how)
    assert recorder.warmed == 0


class Mine(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.calls = net, 0

    def forward(self, x):
        self.calls += 1
        return self.net(x)


def test_unknown_modules_and_bare_callables_run_as_they_are(net, recorder):
    mine = Mine(net)
    for _ in range(3):
        attack(mine, *batch())
        attack(lambda x: net(x), *batch())
    assert recorder.warmed == 0 and mine.calls == 3 * HOW["steps"]


def test_a_hook_sees_every_step(recorded, recorder):
    seen = []
    handle = recorded.layer2.register_forward_hook(lambda *_: seen.append(1))
    attack(recorded, *batch(B=4))
    assert len(seen) == HOW["steps"] and recorder.counts() == (1, 2)
    handle.remove()
    attack(recorded, *batch(B=4))
    assert len(seen) == HOW["steps"] and recorder.counts() == (1, 6)


def test_large_batches_and_other_modes_of_torch_run_as_they_are(recorded, recorder, monkeypatch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attack(recorded, *batch(B=4), precision="reference", engine=None)
    with torch.autograd.detect_anomaly(check_nan=False):
        attack(recorded, *batch(B=4))
    monkeypatch.setattr(recorder, "most_samples", 3)
    attack(recorded, *batch(B=4))
    assert recorder.counts() == (1, 2)


class Negated(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return -out if func is torch.nn.functional.cross_entropy else out


@pytest.mark.parametrize("mode", [Negated(), torch.device("meta")], ids=["a mode", "a default device"])
def test_who_overrides_torch_s_functions_is_asked_in_every_step(recorded, recorder, mode):
    x, y = batch(B=4)
    origin = torch.rand_like(x)
    generator = torch.Generator().manual_seed(0)
    with mode:
        for _ in range(3):
            found = pgd(recorded, origin, y, random_start=False, generator=generator, **HOW)
        expected = pgd(recorded, origin, y, random_start=False, generator=generator, graph=None, **HOW)
    assert torch.equal(found, expected) and recorder.counts() == (1, 2)


def test_two_threads_that_attack_one_network_do_not_share_a_recording(recorded):
    for parameter in recorded.parameters():
        parameter.requires_grad_(False)
    attacks = [(*batch(B=4, seed=seed), seed) for seed in range(6)]
    expected = [attack(recorded, x, y, seed, graph=None) for x, y, seed in attacks]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            found = pool.map(lambda one: attack(recorded, *one), attacks)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_direct_code_is_recorded_and_learned_neurons_are_not(net, recorder):
    clf = fastsnn.Classifier(net, fastsnn.nn.DirectEncoder(T=4))
    images, y = torch.rand(3, 3, 32, 32), torch.arange(3)
    for _ in range(3):
        assert_as_without_graphs(clf, images, y)
    assert recorder.captured == 1
    learned = copy.deepcopy(net)
    fastsnn.nn.learn_neurons(learned)
    for _ in range(3):
        attack(learned, *batch())
    assert recorder.captured == 1


def test_an_unknown_choice_is_refused_by_name(net):
    with pytest.raises(ValueError, match="graph is 'always', expected one of 'auto'"):
        attack(net, *batch(), graph="always")


# Ragged batches


@pytest.mark.parametrize("axis", ["images", "encoded"])
def test_a_smaller_batch_fills_a_recording_where_samples_are_independent(net, recorder, axis):
    network = net if axis == "encoded" else fastsnn.Classifier(net, fastsnn.nn.PhaseEncoder(T=4))
    for seed, samples in enumerate((5, 5, 4, 3, 5)):
        x, y = batch(B=samples, seed=seed)
        x = x if axis == "encoded" else torch.rand(samples, 3, 32, 32)
        assert_as_without_graphs(network, x, y, seed=seed, eps=torch.linspace(0.01, 0.1, samples))
    assert recorder.counts() == (1, 2 + 4 + 4 + 4)
    attack(net, *batch(B=2))
    assert recorder.counts() == (1, 14), "more than twice as large is not worth it"


@pytest.mark.parametrize(
    "how", [{"bn": "batch"}, {"bn": "drift"}, {"precision": "reference"}, {"engine": None}], ids=str
)
def test_a_smaller_batch_does_not_where_they_are_not(net, recorder, how):
    for seed, samples in enumerate((4, 4, 3, 4)):
        assert_as_without_graphs(net, *batch(B=samples, seed=seed), **how)
    assert recorder.counts() == (1, 2 + 4)


def test_what_fills_a_recording_is_the_first_sample_and_moves_with_it(recorded):
    attack(recorded, *batch(B=3, seed=3), eps=torch.tensor([0.1, 0.2, 0.0]))
    (recording,) = recordings.of_networks[recorded].kept.values()
    for static in recording.statics:
        samples = static.unbind(1 if static.dim() > 1 else 0)
        assert torch.equal(samples[3], samples[0]), "so that it is not finite only where the first sample is not"


# Changes


def step_of_an_optimizer(net):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(batch()[0]).square().sum().backward()
    optimizer.step()
    net.zero_grad()


def behind_torchs_back(net):
    net.layer1[0].conv1.weight.data.mul_(1.5)


def linear_behind_torchs_back(net):
    net.fc.weight.data.mul_(1.5)


def other_statistics(net):
    net.layer1[0].bn1.running_mean.add_(0.1)


def other_threshold(net):
    neuron = net.layer1[0].sn2
    neuron.neuron = neuron.neuron._replace(v_threshold=0.5)


def other_surrogate(net):
    for module in net.modules():
        if isinstance(module, fastsnn.nn.IFNode):
            module.neuron = module.neuron._replace(alpha=4.0)


def other_eps(net):
    net.bn1.eps = 0.5


def another_pool(net):
    net.maxpool = torch.nn.AvgPool2d(3, 2, 1)


def another_junction(net):
    net.layer1[0].junction.kind = "iand"


def another_linear(net):
    linear = torch.nn.Linear(net.fc.in_features, 10)
    net.fc = linear


def another_weight(net):
    net.fc.weight = torch.nn.Parameter(net.fc.weight.flip(0))


def loaded(net):
    net.load_state_dict({name: value * 0.9 for name, value in net.state_dict().items()})


DROP = [
    *(step_of_an_optimizer, behind_torchs_back, linear_behind_torchs_back, other_statistics),
    *(other_threshold, other_surrogate, other_eps),
    *(another_pool, another_junction, another_linear, another_weight, loaded),
]


@pytest.mark.parametrize("change", DROP, ids=lambda change: change.__name__)
def test_a_change_drops_the_recording(recorded, recorder, change):
    x, y = batch(B=4)
    before = attack(recorded, x, y)
    change(recorded)
    assert_as_without_graphs(recorded, x, y)
    assert not torch.equal(attack(recorded, x, y), before), "else this proves nothing"
    assert_as_without_graphs(recorded, x, y)
    assert recorder.captured == 2


@pytest.mark.parametrize("how", [{"engine": None}, {"precision": "reference"}, {"bn": "batch"}], ids=str)
def test_weights_that_are_read_in_place_are_seen(net, recorder, how):
    x, y = batch(B=4)
    for _ in range(2):
        attack(net, x, y, **how)
    before = attack(net, x, y, **how)
    with torch.no_grad():
        net.fc.weight.copy_(net.fc.weight.flip(0))
    assert_as_without_graphs(net, x, y, **how)
    assert not torch.equal(attack(net, x, y, **how), before)
    assert recorder.captured == 1


def test_weights_that_change_between_all_attacks_are_never_recorded(net, recorder):
    for seed in range(4):
        assert_as_without_graphs(net, *batch(B=4, seed=seed))
        step_of_an_optimizer(net)
    assert recorder.warmed == 0


def test_kinds_do_not_mix(net, recorder):
    kinds = [{}, {"bn": "batch"}, {"precision": "reference"}, {"engine": None}]
    for _ in range(3):
        for how in kinds:
            assert_as_without_graphs(net, *batch(B=4), **how)
    assert recorder.captured >= len(kinds)


def test_forms_notice_statistics_that_replays_moved(net, recorder):
    (x, y), prepared = batch(B=4), prepare(net)
    for _ in range(3):
        prepared(x)
        attack(prepared, x, y, bn="drift")
        assert torch.equal(prepared(x), prepare(copy.deepcopy(net))(x))
    assert recorder.counts() == (1, 2 + 4)


# Memory


def test_few_recordings_are_kept_and_the_least_recently_used_goes(net, recorder, monkeypatch):
    monkeypatch.setattr(recordings, "KEPT", 2)
    for samples in (1, 4, 1, 9):
        for _ in range(2):
            attack(net, *batch(B=samples))
    own = recordings.of_networks[net]
    assert [samples for _, samples in own.kept] == [1, 9]


def test_recordings_that_keep_too_much_go_but_the_last(net, monkeypatch):
    monkeypatch.setattr(recordings, "recorder_on", lambda device: Counted())
    samples_kept = []
    for samples in (1, 3, 9):
        for _ in range(2):
            attack(net, *batch(B=samples))
        kept = recordings.of_networks[net].kept
        samples_kept.append([key[1] for key in kept])
        if samples == 3:
            monkeypatch.setattr(recordings, "MOST_BYTES", sum(one.bytes for one in kept.values()))
    assert samples_kept == [[1], [1, 3], [9]]
    assert kept.popitem()[1].bytes > recordings.MOST_BYTES, "one may be larger"


class Nothing(Again):
    """Keeps no step, as a CUDA graph keeps none: results are not those of an attack."""

    def capture(self, step):
        return lambda: None


def test_recordings_go_with_their_network(net, monkeypatch):
    monkeypatch.setattr(recordings, "recorder_on", lambda device: Nothing())
    network = copy.deepcopy(net)
    for _ in range(2):
        attack(network, *batch())
    (recording,) = recordings.of_networks[network].kept.values()
    gone = weakref.ref(network), weakref.ref(recording)
    del network, recording
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_too_little_memory_drops_what_is_kept_and_halves_the_copies(net, recorder, monkeypatch):
    monkeypatch.setattr(batch_size, "ON_CPU", 1000)
    x, y = batch(B=2)
    for _ in range(2):
        attack(net, x, y)
    forward, eps = type(net).forward_sequence, [0.02, 0.1, 0.03, 0.2]
    expected = attack(net, x, y, eps=eps, graph=None)

    def small(self, x):
        if x.shape[1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 bytes.")
        return forward(self, x)

    own = recordings.of_networks[net]
    ((kind, _),) = own.kept
    own.met.add((kind, 8))
    monkeypatch.setattr(type(net), "forward_sequence", small)
    for _ in range(3):
        results = attack(net, x, y, eps=eps)
        assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
        assert (kind, 2) not in own.kept
    assert [samples for _, samples in own.kept] == [4]


# What goes wrong


class Refusing(Again):
    def capture(self, step):
        self.captured += 1
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nand a second line")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")


@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
def test_a_failing_capture_goes_on_step_by_step_and_says_so_once(net, monkeypatch, caplog, bn):
    recorder = Refusing()
    monkeypatch.setattr(recordings, "recorder_on", lambda device: recorder)
    with caplog.at_level(logging.INFO, "fastsnn"):
        for seed in range(4):
            assert_as_without_graphs(net, *batch(B=4, seed=seed), bn=bn)
            assert_as_without_graphs(net, *batch(B=2, seed=seed), bn=bn)
    assert recorder.captured == 1
    expected = "fastsnn attacks SEWResNet without recorded steps: operation not permitted when stream is capturing"
    assert [record.getMessage() for record in caplog.records if record.name == "fastsnn"] == [expected]


def test_a_tape_that_is_refused_stands_for_its_kind_alone(net, monkeypatch, caplog):
    recorder = Counted()
    recorder.fails_for_good = False
    monkeypatch.setattr(recordings, "recorder_on", lambda device: recorder)
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "fastsnn"):
        patch.setattr(tape, "_place", lambda blocks: 2**60)
        for _ in range(3):
            assert_as_without_graphs(net, *batch(B=4), bn="batch")
    assert recorder.captured == 0 and len([record for record in caplog.records if record.name == "fastsnn"]) == 1
    for _ in range(3):
        assert_as_without_graphs(net, *batch(B=4))
        assert_as_without_graphs(net, *batch(B=4), bn="batch")
    assert recorder.captured == 1


def test_labels_are_looked_at_before_a_replay(recorded, recorder):
    x, y = batch(B=4)
    with pytest.raises(ValueError, match="y has the label 10, but network returned 10 classes"):
        attack(recorded, x, y.clone().fill_(10))
    assert recorder.counts() == (1, 2)


def test_what_is_not_finite_is_told_of_a_replay_and_forgotten_with_it(recorded, recorder):
    x, y = batch(B=4)
    bias = recorded.fc.bias.clone()
    recorded.fc.bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        attack(recorded, x, y)
    assert recorder.counts() == (1, 6)
    recorded.fc.bias.data.copy_(bias)
    assert_as_without_graphs(recorded, x, y)
    assert recorder.counts() == (1, 10)


def test_an_empty_batch_comes_back_empty(recorded, recorder):
    x, y = torch.zeros(4, 0, 3, 32, 32), torch.zeros(0, dtype=torch.long)
    assert attack(recorded, x, y).shape == x.shape
    assert recorder.counts() == (1, 2)
