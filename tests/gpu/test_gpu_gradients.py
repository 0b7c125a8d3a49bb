"""Hypergradients on a GPU against float64, of every network and kind of initial weights.

In float64 the GPU must give what the CPU does. In float32 (without TF32) it must give the same where its ReLUs and
pools go the same way; how far it is off where they go their own is measured, and shown beside the number that did.
"""

from statistics import median

import pytest
import torch
import torch.nn.functional as F
from branches import Branches, seen_by_modes, switches, use_kernels
from made_up import made_up_data

from raydistill.config.distill_config import DistillConfig
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.settings import validated
from raydistill.method import DistilledSet, Distiller, hypergradient
from raydistill.method.initial_weights import population_weights
from raydistill.networks import build_network
from raydistill.networks.initialisers import Initialiser
from raydistill.runs.pretraining import pretrain
from raydistill.system.device import use_precision

pytestmark = pytest.mark.gpu

SHAPES = {
    "lenet": (1, 28, 28),
    "lenet 32": (3, 32, 32),
    "alexcifarnet": (3, 32, 32),
    "convnet": (3, 32, 32),
    "torchvision:tiny_plain": (3, 16, 16),
    "torchvision:tiny_vit": (3, 8, 8),
    "torchvision:tiny_norm": (3, 16, 16),
    "torchvision:squeezenet1_1": (3, 32, 32),
}
KINDS = {  # with the number of sets and of networks
    "fixed": {"population": 1},
    "random": {"population": 2, "train_nets": 3},
    "fixed_pretrained": {"population": 2},
    "random_pretrained": {"population": 1, "train_nets": 3},
}
CASES = [
    (name, kind)
    for name in SHAPES
    for kind in KINDS
    if not (name.endswith("tiny_norm") and "_" not in kind)  # its weights are published ones
    and not (name.endswith("squeezenet1_1") and kind != "fixed")  # the largest: its float64 takes long
]
INNER_LR = {"alexcifarnet": 0.005}  # with 0.05 its ReLUs and pools switch by the thousand, in any float32
FLOAT64 = {"torchvision:tiny_plain": 1e-6, "torchvision:tiny_norm": 1e-6}  # on GPUs torch's hardswish has a float32 1/6
SEEDS = 3
CPU = torch.device("cpu")
PARTS = ("images", "labels", "raw_rates")


def network_of(name):
    """The settings of the network that a case names first."""
    network = name.split()[0]
    return {"name": network} | ({"width": 16} if network == "convnet" else {})


@pytest.fixture(scope="module")
def banks(device, tmp_path_factory):
    """The folder of a bank of networks of that name, trained for a few steps on the device."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("bank")
            settings = {"network": network_of(name), "device": str(device)}
            config = PretrainConfig(**settings, nets=5, epochs=1, batch_size=32)
            pretrain(config, made[name], data=made_up_data(SHAPES[name], device))
        return made[name]

    return folder


def distillers(name, kind, seeds, device, banks, **update):
    """A Distiller for each seed, all with one network, so that it is recorded once."""
    data, bank = made_up_data(SHAPES[name], device), None
    settings = {
        "network": network_of(name),
        "weights": kind,
        **KINDS[kind],
        "inner_lr": INNER_LR.get(name, 0.05),
    }
    if name.endswith("tiny_norm"):
        settings["bank"] = "published"
    elif kind.endswith("_pretrained"):
        from raydistill.store.bank import load_bank

        settings["bank"] = str(banks(name))
        bank = load_bank(settings["bank"]).networks
    settings |= {"images_per_class": 1, "steps": 2, "epochs": 2, "batch_size": 16, "labels": "softmax", **update}
    config = validated(
        DistillConfig,
        {
            **settings,
            "val_nets": 1,
            "test_nets": 1,
            "images": {"init": {"name": "noise", "std": 1.0}},
            "device": str(device),
        },
    )
    network = build_network(config, data.image_shape, data.num_classes)
    if name.endswith("tiny_norm"):
        network.initialiser = Initialiser(network.module, "xavier", None)  # in place of a download
    made = []
    for seed in range(seeds):
        config = config.model_copy(update={"seed": seed})
        starts = population_weights(config, network, data.train.images.device, bank)
        made.append(Distiller(config, network, data.train, data.num_classes, starts=starts))
    return made


def inputs(distiller):
    """What the next iteration would compute the hypergradient of."""
    stream = distiller.generators["weights"]
    weights = torch.stack([w.sample(distiller.config.train_nets, stream) for w in distiller.initial_weights])
    return distiller.learned, weights, *distiller._real_batch()


def moved(arguments, device, dtype):
    distilled, weights, images, labels = arguments
    parts = [getattr(distilled, part).to(device, dtype) for part in PARTS]
    return DistilledSet(*parts), weights.to(device, dtype), images.to(device, dtype), labels.to(device)


def computed(network, arguments, branches=None):
    """The hypergradient, on the CPU in float64; with `branches`, after it was recorded."""
    if branches is not None:
        hypergradient(network, *arguments)
        with branches:
            loss, gradient = hypergradient(network, *arguments)
    else:
        loss, gradient = hypergradient(network, *arguments)
    return [t.detach().double().cpu() for t in (loss, *(getattr(gradient, part) for part in PARTS))]


def error(found, right):
    """Of the worst set: the loss's relative error, and for the images 1 - cosine, |norm ratio - 1|, and the largest
    difference over the largest value; for labels and step sizes the latter of the worse one."""
    losses = ((found[0] - right[0]) / right[0]).abs().max()
    mine, theirs = found[1].flatten(1), right[1].flatten(1)
    turned = 1 - F.cosine_similarity(mine, theirs, 1).min()
    longer = (mine.norm(dim=1) / theirs.norm(dim=1) - 1).abs().max()
    largest = [
        ((a - b).flatten(1).abs().amax(1) / b.flatten(1).abs().amax(1)).max()
        for a, b in zip(found[1:], right[1:], strict=True)
    ]
    return [losses.item(), turned.abs().item(), longer.item(), largest[0].item(), max(largest[1:]).item()]


HEAD = ("loss", "1 - cosine", "norm", "images, largest", "labels and rates, largest")


def compared(distiller, reference, device, patch):
    """Errors of float32 against float64, gone its own way and followed, and switches; and of float64 on GPU and CPU.

    Float64 is computed on the GPU, or where float32 has kernels of our own, on the CPU, which has the same; the other
    one must agree, which the first seed checks.
    """
    network, arguments = distiller.network, inputs(distiller)
    own, free = Branches(), Branches()
    mine = computed(network, arguments, own)
    kernels = any(kind == "conv_relu_pool" for kind, _ in own.taken)
    where, other = (CPU, device) if kernels else (device, CPU)
    with patch.context() as inner:
        use_kernels(inner, kernels)
        double = moved(arguments, where, torch.float64)
        right, followed = (computed(reference, double, branches) for branches in (free, Branches(own.taken)))
    exact = None
    if distiller.config.seed == 0:
        exact = error(computed(network, moved(arguments, other, torch.float64)), right)
    return error(mine, right), error(mine, followed), switches(own.taken, free.taken), exact


def compared_all(many, device, patch):
    """`compared` of each Distiller, with another network of the same kind for the reference."""
    shape = tuple(many[0].learned.images.shape[-3:])
    reference = build_network(many[0].config, shape, many[0].learned.labels.shape[-1])
    return [compared(distiller, reference, device, patch) for distiller in many]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda value: value.replace(" ", ""))
def test_equals_float64(name, kind, device, banks, report, tiny_classifiers, monkeypatch):
    seen_by_modes(monkeypatch)
    results = compared_all(distillers(name, kind, SEEDS, device, banks), device, monkeypatch)
    rows = [
        [seed, *row]
        for seed, (free, led, switched, exact) in enumerate(results)
        for row in ([["float64", "", *exact]] if exact else [])
        + [["float32", switched, *free], ["float32, same branches", "", *led]]
    ]
    report(f"{name}, {kind}: errors against float64", ("seed", "", "switches", *HEAD), rows)
    assert max(results[0][3]) < FLOAT64.get(name, 1e-9), "a kernel is wrong, or float64 went another way"
    for column in range(len(HEAD)):
        assert median(led[column] for _, led, _, _ in results) < 1e-4, "a kernel is wrong in float32"
    assert all(led[1] < 1e-6 for _, led, _, _ in results)
    assert all(free[3] < 1e-3 for free, _, switched, _ in results if not switched)


def test_the_lenet_that_was_off_by_a_fifth(device, banks, report, monkeypatch):
    """Two sets and three networks in float32: large errors are those of ReLUs and pools that switch, and rare."""
    seen_by_modes(monkeypatch)
    many = distillers("lenet", "random", 12, device, banks, images_per_class=5, epochs=3)  # enough to switch
    results = compared_all(many, device, monkeypatch)
    rows = [[seed, switched, *free, led[3]] for seed, (free, led, switched, _) in enumerate(results)]
    report("LeNet, 2 sets, 3 networks, float32", ("seed", "switches", *HEAD, "images with the same branches"), rows)
    assert max(led[3] for _, led, _, _ in results) < 1e-3
    assert median(free[1] for free, _, _, _ in results) < 1e-3
    assert all(switched for free, _, switched, _ in results if free[3] > 1e-2)


def test_compiled_as_recorded(cuda, banks, report):
    """torch's compiler sums in another order, and computes some things twice: no more."""
    small = {"population": 1, "train_nets": 1, "network.depth": 1}  # a deeper one takes it more than a minute
    rows, many = [], distillers("convnet", "random", SEEDS, cuda, banks, **small)
    compiled = build_network(many[0].config, SHAPES["convnet"], 4)
    compiled.compile = True  # at the first call, for all seeds
    for distiller in many:
        arguments = inputs(distiller)
        recorded = computed(distiller.network, arguments)
        rows.append([distiller.config.seed, *error(computed(compiled, arguments), recorded)])
    report("convnet, random: compiled against recorded", ("seed", *HEAD), rows)
    assert all(median(row[column] for row in rows) < 1e-4 for column in (1, 2, 3))


@pytest.mark.parametrize(("precision", "turned"), [("tf32", 0.05), ("bfloat16", 0.3)])
@pytest.mark.parametrize("name", ["lenet", "convnet"])
def test_less_precise_arithmetic_keeps_the_direction(name, precision, turned, device, banks, report, monkeypatch):
    if precision == "tf32" and device.type != "cuda":
        pytest.skip("only a GPU has TF32")
    rows = []
    for distiller in distillers(name, "random", SEEDS, device, banks):
        arguments, config = inputs(distiller), distiller.config.model_copy(update={"precision": precision})
        exact = computed(distiller.network, arguments)
        use_precision(precision if device.type == "cuda" else "float32", device)
        rounded = computed(build_network(config, arguments[2].shape[1:], 4), arguments)
        use_precision("float32", device)
        rows.append([distiller.config.seed, *error(rounded, exact)])
    report(f"{name}, random: {precision} against float32", ("seed", *HEAD), rows)
    assert median(row[2] for row in rows) < turned
    assert all(row[1] < 0.1 for row in rows)
    assert any(row[4] > 1e-6 for row in rows), "it is no other arithmetic"
