"""Ridge regression as the inner solver: its gradient, its pool, and runs that resume."""

import pytest
import torch
import torch.nn.functional as F
from resuming import make, whole_and_resumed

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.config.solver_settings import Pool
from raydistill.data import load_dataset
from raydistill.evaluation.problem import check_problem
from raydistill.method import DistilledSet
from raydistill.method.initial_weights import RandomWeights
from raydistill.method.pool import NetworkPool
from raydistill.method.ridge import RidgeOptions, last_layer, ridge_hypergradient
from raydistill.method.rng import named_generator
from raydistill.method.solver import Ridge
from raydistill.networks import build_network
from raydistill.networks.body import body_of
from raydistill.runs.run import Run
from raydistill.system import limits
from raydistill.system.errors import UserError

CLASSES = 4
NETWORKS = [
    *(("lenet", shape) for shape in ((1, 28, 28), (3, 32, 32), (1, 8, 8))),
    ("convnet", (3, 8, 8)),
    ("alexcifarnet", (3, 8, 8)),
    ("torchvision:tiny_vit", (3, 8, 8)),
    ("torchvision:tiny_plain", (3, 8, 8)),
]


def network_of(name, shape, classes=CLASSES):
    size = {"width": 8, "depth": 2} if name == "convnet" else {}
    return build_network(validated(DistillConfig, {"network": {"name": name, **size}}), shape, classes)


@pytest.fixture(params=NETWORKS, ids=lambda p: f"{p[0]}-{p[1][1]}")
def network(request, tiny_classifiers):
    """A network and the shape of its images."""
    return network_of(*request.param), request.param[1]


def made_up(shape, sets=1, nets=1, network=None):
    """Stacked sets, weights [P, N, W] and a real batch, in float64."""
    generator = named_generator(5, "test")
    images = torch.randn(sets, 1, 6, *shape, generator=generator).double()
    labels = torch.randn(sets, 1, 6, CLASSES, generator=generator).double()
    weights = network.initial_weights(sets * nets, generator).double().unflatten(0, (sets, nets))
    real = torch.randn(16, *shape, generator=generator).double()
    classes = torch.randint(CLASSES, (16,), generator=generator)
    return DistilledSet(images, labels, torch.zeros(sets, 0, 1).double()), weights, (real, classes)


@pytest.mark.slow
def test_the_last_layer_of_the_features_gives_the_logits(network):
    network, shape = network
    weights = network.initial_weights(1, named_generator(0, "test"))[0].double()
    images = torch.randn(3, *shape, generator=named_generator(1, "test")).double()
    named = network.unflatten(weights)
    last = network.body().last
    logits = network.features(weights, images) @ named[f"{last}.weight"].T + named[f"{last}.bias"]
    assert torch.allclose(logits, network(weights, images), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("options", [RidgeOptions(0.01), RidgeOptions(0.1, mirror=True, margin=True)], ids=str)
def test_equals_full_autograd(network, options, caplog):
    """The oracle is one graph through the features and the closed form, written with an inverse."""
    network, shape = network
    distilled, weights, (real, classes) = made_up(shape, 2, 2, network)
    loss, gradient = ridge_hypergradient(network, distilled, weights, real, classes, options)
    losses = []
    images, labels = (t[:, 0].clone().requires_grad_() for t in (distilled.images, distilled.labels))
    for p in range(2):
        x, y = images[p], labels[p]
        if options.mirror:
            x, y = torch.cat([x, x.flip(-1)]), torch.cat([y, y])
        for w in weights[p]:
            phi, at = network.features(w, x), network.features(w, real)
            gram = phi @ phi.T
            ridge = options.strength * torch.trace(gram) / len(x)
            found = torch.linalg.inv(gram + ridge * torch.eye(len(x)).double()) @ (y - 1 / CLASSES)
            targets = F.one_hot(classes, CLASSES) - 1 / CLASSES
            losses.append(0.5 * (at @ phi.T @ found - targets).square().sum(1).mean())
            if options.margin:
                ordered = labels[p].sort(descending=True).values
                losses[-1] = losses[-1] + torch.relu(1 / CLASSES - ordered[:, 0] + ordered[:, 1]).mean()
    expected = torch.stack(losses).view(2, 2).mean(1)
    assert torch.allclose(loss, expected, rtol=1e-9)
    for mine, theirs in zip(
        (gradient.images[:, 0], gradient.labels[:, 0]),
        torch.autograd.grad(expected.sum(), (images, labels)),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, rtol=1e-8, atol=1e-10)
        assert mine.abs().max() > 1e-6
    assert not caplog.records  # It was recorded, not called as it is.


def test_the_gradient_agrees_with_finite_differences():
    network = network_of("convnet", (3, 8, 8))
    distilled, weights, real = made_up((3, 8, 8), network=network)
    step = torch.randn(distilled.images.shape, generator=named_generator(2, "test")).double() * 1e-6
    sides = [
        ridge_hypergradient(
            network, DistilledSet(distilled.images + s * step, distilled.labels, distilled.raw_rates), weights, *real,
            RidgeOptions(0.01),
        )[0]
        for s in (1, -1)
    ]  # fmt: skip
    gradient = ridge_hypergradient(network, distilled, weights, *real, RidgeOptions(0.01))[1].images
    assert torch.allclose((sides[0] - sides[1]) / 2, (gradient * step).sum(), rtol=1e-4)


@pytest.mark.parametrize(("images", "features"), [(5, 20), (40, 20)])
def test_the_last_layer_is_scikit_learns_ridge_regression(images, features):
    from sklearn import linear_model

    generator = named_generator(0, "test")
    x = torch.randn(images, features, generator=generator).double()
    y = F.one_hot(torch.arange(images) % CLASSES, CLASSES).double()
    expected = linear_model.Ridge(alpha=0.03 * x.square().sum(1).mean().item(), fit_intercept=False).fit(
        x, y - 1 / CLASSES
    )
    assert torch.allclose(last_layer(x, y, 0.03), torch.from_numpy(expected.coef_.T), atol=1e-8)


def test_float32_features_are_enough_at_frepos_strength():
    """The Gram matrix has a condition number of a million there; in float32 the factor would not exist."""
    x = torch.randn(60, 40, generator=named_generator(0, "test"))
    y = F.one_hot(torch.arange(60) % CLASSES, CLASSES).float()
    last = last_layer(x, y, 1e-6)
    assert last.isfinite().all()
    best = torch.linalg.lstsq(x.double(), y.double() - 1 / CLASSES).solution
    assert torch.allclose(last, best, atol=1e-4)


# -- the pool ----------------------------------------------------------------------------------------------------------


class Lines:
    """A network of two weights, drawn from a normal distribution."""

    def initial_weights(self, count, generator):
        return torch.randn(count, 2, generator=generator)


def pool_of(sets=2, **settings):
    starts = [RandomWeights(Lines())] * sets
    return NetworkPool(Pool(**settings), starts, 3, {"weights": named_generator(3, "weights")})


@pytest.mark.parametrize(
    ("optimizer", "torchs"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)], ids=["adam", "sgd"]
)
def test_a_network_is_trained_as_by_torch_alone(optimizer, torchs):
    """However many iterations use other networks in between."""
    pool = pool_of(sets=1, size=4, age=1000, optimizer=optimizer, lr=0.05)
    theirs = [torch.nn.Parameter(w.clone()) for w in pool.weights[0]]
    optimizers = [torchs([w], lr=0.05) for w in theirs]
    for _ in range(30):
        chosen = pool.choose(2)
        gradient = torch.stack([2 * theirs[i].detach() for i in chosen])  # of |w|^2
        pool.train(chosen, gradient[None])
        pool.replace_old()
        for i in chosen:
            theirs[i].grad = 2 * theirs[i].detach()
            optimizers[i].step()
    assert torch.allclose(pool.weights[0], torch.stack([w.detach() for w in theirs]), atol=1e-5)


def test_networks_of_all_ages_are_there_and_none_is_too_old():
    pool = pool_of(size=5, age=20)
    ages = []
    for _ in range(400):
        chosen = pool.choose(1)
        before = pool.weights.clone()
        pool.train(chosen, torch.ones(2, 1, 2))
        assert pool.counts[chosen] <= 20
        pool.replace_old()
        others = [i for i in range(5) if i != chosen]
        assert torch.equal(pool.weights[:, others], before[:, others])
        ages += pool.counts.tolist()
        assert pool.counts.tolist() == [
            0.0 if left == 20 else count for left, count in zip(pool.left, pool.counts.tolist(), strict=True)
        ]
    assert set(ages[500:]) == set(range(20))
    assert torch.equal(pool.squares[:, pool.counts == 0], torch.zeros_like(pool.squares[:, pool.counts == 0]))


def test_ages_differ_from_the_start():
    assert pool_of(size=10, age=100).left == list(range(10, 101, 10))
    assert pool_of(size=3, age=2).left == [1, 2, 2]


# -- a run -------------------------------------------------------------------------------------------------------------

RIDGE = {
    "solver": {"name": "ridge", "pool": {"size": 3, "age": 2}},
    "weights": "random",
    "epochs": 3,
    "steps": 1,
    "images_per_class": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "update",
    [
        {},
        {"train_nets": 2, "labels": "free", "solver.margin": True},
        {"population": 3, "solver.mirror": True},
        {"weights": "fixed", "solver.pool.optimizer": "sgd"},
        {"network": {"name": "convnet", "width": 8, "depth": 2}, "steps": 2},
        {"solver.network": {"name": "convnet", "width": 8, "depth": 2}, "population": 2},
    ],
    ids=str,
)
def test_resume_is_bit_identical(small, digits, update):
    """The networks of the pool give way several times on the way."""
    config = small.changed(RIDGE).changed(update)
    whole, second = whole_and_resumed(config, digits, iterations=12, stop=5)
    assert torch.equal(whole.solver.pool.weights, second.solver.pool.weights)
    assert whole.learned.raw_rates.shape == (config.population.size, 0, config.steps)


@pytest.mark.slow
def test_the_state_of_the_pool_is_complete(small, digits):
    config = small.changed(RIDGE).changed({"solver.pool.age": 50})
    distiller = make(config, digits)
    for _ in range(4):
        distiller.step()
    state, fresh = distiller.state_dict(), make(config, digits).state_dict()

    def after(solver):
        other = make(config, digits)
        other.load_state_dict(state | {"solver": solver})
        for _ in range(12):
            other.step()
        return other.learned.images

    expected = after(state["solver"])
    for key in ("weights", "means", "squares", "counts", "uses"):
        assert not torch.equal(after(state["solver"] | {key: fresh["solver"][key]}), expected), key


@pytest.mark.slow
def test_a_ridge_run_learns(small, digits):
    """The loss on real images falls, on features of networks never seen too."""
    config = small.changed(RIDGE).changed(
        {"network": {"name": "convnet", "width": 16, "depth": 2, "init": "kaiming"}, "iterations": 60, "labels": "free"}
    )
    pool = {"size": 5, "age": 30, "lr": 0.0003}
    distiller = make(config.changed({"solver": {"name": "ridge", "strength": 1e-6, "pool": pool}}), digits)
    start = distiller.learned.detached()
    losses = [distiller.step().item() for _ in range(60)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    new = distiller.network.initial_weights(8, named_generator(77, "new"))[None]
    real = digits.val.images[:], digits.val.labels
    first, last = (
        ridge_hypergradient(distiller.network, s, new, *real, RidgeOptions(1e-6))[0].item()
        for s in (start, distiller.learned)
    )
    assert last < 0.8 * first


@pytest.mark.slow
def test_a_set_is_learned_with_another_network_than_it_is_for(small, digits):
    """The features are those of a ConvNet; validation and the artifact are of LeNets."""
    config = small.changed(RIDGE).changed({"iterations": 4, "eval_every": 4})
    config = config.changed({"solver.network": "convnet"}).changed(
        {"solver.network.width": 8, "solver.network.depth": 2}
    )
    run, plain = (Run(c, digits) for c in (config, config.changed({"solver.network": None})))
    other = network_of("convnet", digits.image_shape, digits.num_classes)
    assert isinstance(run.distiller.solver, Ridge)
    assert run.distiller.solver.pool.weights.shape == (1, 3, other.num_weights)
    assert run.problem.held_out("test").shape[1] == run.problem.network.num_weights != other.num_weights
    assert torch.equal(run.problem.held_out("test"), plain.problem.held_out("test"))
    for each in (run, plain):
        each.advance()
    assert not torch.equal(run.current.images, plain.current.images)
    artifact = run.artifact()
    assert artifact.config.network.name == "lenet"
    assert artifact.config.solver == config.solver


def test_another_network_has_to_fit_the_images(small, digits):
    config = small.changed(RIDGE).changed({"solver.network": {"name": "convnet", "depth": 9}})
    with pytest.raises(UserError, match=r"^solver\.network=convnet does not fit images of 8x8 pixels: "):
        check_problem(config, digits, None)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"solver.network": "lenet", "weights": "fixed"}, r"^solver\.network: needs weights=random, .* got fixed$"),
        ({"solver.network": "lenett"}, r"^solver\.network: .*did you mean lenet"),
        ({"train_nets": 4}, r"^train_nets=4: is more than solver\.pool\.size=3$"),
        ({"epochs": 5}, r"^epochs=5: is for solver=unroll; ridge takes no gradient steps on the set$"),
        ({"inner_lr": 0.5}, r"^inner_lr=0\.5: is for solver=unroll"),
        ({"outer.rate_lr": 0.1}, r"^outer\.rate_lr=0\.1: is for solver=unroll"),
        ({"solver.margin": True}, r"^solver\.margin: is for learned labels; set labels=free or labels=softmax$"),
        (
            {
                "objective": {"name": "attack", "attacked": 0, "target": 1},
                "weights": "random_pretrained",
                "bank": "there",
            },
            r"^objective=attack: solver=ridge cannot serve it; use solver=unroll$",
        ),
        ({"solver.strength": 0.0}, r"^solver\.strength: "),
        ({"solver.pool.sice": 4}, r"^solver\.pool\.sice: there is no such setting; did you mean solver\.pool\.size\?$"),
    ],
    ids=str,
)
def test_what_ridge_cannot_do_is_one_line(small, update, message):
    with pytest.raises(UserError, match=message):
        small.changed(RIDGE).changed(update)


def test_a_network_without_a_last_linear_layer_is_refused():
    with pytest.raises(
        UserError, match=r"^solver=ridge: needs a network whose last layer is linear, and that of SqueezeNet is Conv2d"
    ):
        network_of("torchvision:squeezenet1_1", (3, 64, 64)).features(torch.zeros(1), torch.zeros(1, 3, 64, 64))
    with pytest.raises(UserError, match="no layer with weights"):
        body_of(torch.nn.Flatten())


@pytest.mark.slow
def test_a_sweep_knows_so_before_its_first_trial(small):
    form = {"data.image_size": 64, "data.channels": 3}
    large = small.changed(RIDGE).changed(form | {"network": "torchvision:squeezenet1_1"})
    with pytest.raises(UserError, match=r"^solver=ridge: needs a network whose last layer is linear"):
        check_problem(large, load_dataset(large), None)


def test_a_pool_larger_than_memory_is_refused(small, digits):
    config = small.changed(RIDGE).changed({"solver.pool.size": 10_000, "network": "alexcifarnet"})
    if limits.memory()[0] > 2**40:
        pytest.skip("this machine has more than a terabyte of memory")
    with pytest.raises(UserError, match=r"^solver\.pool\.size=10000: needs \d+\.\d GiB .*; at most \d+ would fit$"):
        make(config, digits)
