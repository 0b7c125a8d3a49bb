"""The four baselines, judged by gradient steps and by nearest neighbours."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.neighbors import KNeighborsClassifier
from torch.utils._python_dispatch import TorchDispatchMode

from raydistill.config.distill_config import DistillConfig
from raydistill.config.recipe_settings import AdamRecipe, Choice
from raydistill.data import Split
from raydistill.evaluation.accuracy import SCHEDULE, Evaluation, score, train_networks
from raydistill.evaluation.baseline_images import average_images, classes_for, kmeans_images
from raydistill.evaluation.baselines import RATES, Baselines, ByGradient, random_real
from raydistill.evaluation.knn import by_neighbours, neighbour_accuracies
from raydistill.evaluation.problem import Problem
from raydistill.method import DistilledSet
from raydistill.method.initial_weights import BankWeights, FixedWeights, RandomWeights
from raydistill.method.objective import CLASSIFY, Objective
from raydistill.method.rng import named_generator
from raydistill.networks import build_network

CHOICE = Choice(steps=20, nets=3)
CLASSES = torch.arange(10).repeat_interleave(2).expand(3, -1)  # 3 steps of 2 images a class


@pytest.fixture(scope="module")
def network(digits):
    return build_network(DistillConfig(), digits.image_shape, 10)


@pytest.fixture
def like(digits):
    """A set of 30 images in 3 steps and 2 epochs."""
    labels = torch.eye(10).expand(3, -1, -1)
    return DistilledSet.from_rates(torch.zeros(3, 10, *digits.image_shape), labels, torch.full((2, 3), 0.1))


@pytest.fixture(params=["fixed", "random"])
def start(request, network):
    one = network.initial_weights(1, named_generator(0, "w"))[0]
    return FixedWeights(one) if request.param == "fixed" else RandomWeights(network)


def problem_of(data, network, start, seed=0, objective=CLASSIFY):
    return Problem(DistillConfig(seed=seed, choice=CHOICE), data, network, objective, (start,))


def same_steps(problem, like):
    return random_real(problem, like, SCHEDULE)[0]


def without_a_class(split, label):
    return split.at(split.labels != label)


# -- the sets ----------------------------------------------------------------------------------------------------


def test_real_images_are_training_images_of_their_class(digits):
    images = digits.train.of_classes(CLASSES, named_generator(0, "x")).flatten(0, 1)
    places = [(digits.train.images[:] == image).flatten(1).all(1).nonzero()[0, 0] for image in images]
    assert digits.train.labels[torch.stack(places)].tolist() == CLASSES.flatten().tolist()
    assert len({int(p) for p in places}) == 60  # without replacement


def test_average_is_the_mean_of_the_class(digits):
    images = average_images(digits.train, CLASSES)
    for label in range(10):
        members = digits.train.images[digits.train.labels == label].double()
        for image in images[label == CLASSES]:
            assert torch.allclose(image.double(), members.mean(0), atol=1e-6)


def test_kmeans_is_as_good_as_the_best_of_many_starts(digits):
    """The sum of squared distances to the nearest centre, against scikit-learn's own with ten starts."""
    images = kmeans_images(digits.train, CLASSES, seed=0)
    assert images.shape == (3, 20, 1, 8, 8)
    random = digits.train.of_classes(CLASSES, named_generator(0, "x"))
    for label in range(10):
        points = digits.train.images[digits.train.labels == label].flatten(1)

        def inertia(sets, points=points, label=label):
            return torch.cdist(points, sets[label == CLASSES].flatten(1)).min(1).values.square().sum().item()

        best = KMeans(6, n_init=10, random_state=1).fit(points.numpy()).inertia_
        assert 0.999 * best <= inertia(images) < 1.1 * best
        assert inertia(random) > 1.2 * best


def test_kmeans_follows_its_seed_and_with_one_image_is_the_average(digits):
    assert torch.equal(kmeans_images(digits.train, CLASSES, 0), kmeans_images(digits.train, CLASSES, 0))
    assert not torch.equal(kmeans_images(digits.train, CLASSES, 0), kmeans_images(digits.train, CLASSES, 1))
    one = torch.arange(10)[None]
    assert torch.allclose(kmeans_images(digits.train, one, 0), average_images(digits.train, one), atol=1e-4)


def test_more_images_than_the_class_has(digits):
    few = digits.train.first(30)
    classes = torch.full((1, 40), int(few.labels[0]))
    members = few.images[few.labels == few.labels[0]]
    centres = kmeans_images(few, classes, 0)[0]
    apart = (centres[:, None] - members).flatten(2).abs().amax(2)  # [40, members]
    assert apart.amin(1).max() < 1e-4  # the images themselves,
    assert apart.amin(0).max() < 1e-4  # and all of them
    assert few.of_classes(classes, named_generator(0, "x")).shape == (1, 40, 1, 8, 8)


def test_a_class_without_images_is_grey(digits):
    split = without_a_class(digits.train, 4)
    for images in (
        kmeans_images(split, CLASSES, 0),
        average_images(split, CLASSES),
        split.of_classes(CLASSES, named_generator(0, "x")),
    ):
        assert (images[CLASSES == 4] == 0).all()
        assert (images[CLASSES != 4].flatten(1).abs().sum(1) > 0).all()


def test_classes_are_those_of_the_labels_where_they_are_balanced():
    generator = named_generator(0, "x")
    classes = CLASSES.flatten()[torch.randperm(60, generator=generator)].view(3, 20)
    onehot = torch.eye(10)[classes]
    assert torch.equal(classes_for(onehot, generator), classes)
    soft = onehot.lerp(torch.rand(10, generator=generator), 0.2)
    assert torch.equal(classes_for(soft, generator), classes)


@pytest.mark.parametrize("shape", [(1, 5), (2, 4), (3, 7), (1, 10), (2, 15)])
def test_classes_are_spread_where_labels_do_not_say(shape):
    mixed = torch.full((*shape, 10), 0.1)
    counts = classes_for(mixed, named_generator(0, "x")).flatten().bincount(minlength=10)
    assert counts.max() - counts.min() <= 1
    others = [classes_for(mixed, named_generator(seed, "x")).flatten().tolist() for seed in range(5)]
    assert len({tuple(o) for o in others}) > 1  # by chance


# -- nearest neighbours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [2**22, 500])
def test_neighbours_are_those_of_scikit_learn(digits, monkeypatch, block):
    monkeypatch.setattr("raydistill.evaluation.knn.BLOCK", block)
    sets = torch.stack([digits.train.of_classes(CLASSES, named_generator(s, "x")) for s in range(3)])
    accuracies = neighbour_accuracies(sets, CLASSES, digits.test, (1, 3, 5))
    assert accuracies.shape == (3, 3)
    for i, k in enumerate((1, 3, 5)):
        for j, images in enumerate(sets):
            classifier = KNeighborsClassifier(k).fit(images.reshape(60, -1).numpy(), CLASSES.flatten().numpy())
            expected = classifier.score(digits.test.images[:].flatten(1).numpy(), digits.test.labels.numpy())
            assert accuracies[i, j].item() == pytest.approx(expected, abs=1e-6)


@pytest.fixture
def tf32():
    """GPUs round products, as they do for precision=tf32."""
    products, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    products.allow_tf32 = True
    yield products
    products.allow_tf32 = before


def test_distances_are_exact_whatever_the_precision_of_the_networks(digits, tf32):
    """TF32 has 10 bits; who is nearest would change."""
    rounded = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "mm" in function.__name__:
                rounded.append(tf32.allow_tf32)
            return function(*args, **kwargs or {})

    with Products():
        neighbour_accuracies(digits.train.of_classes(CLASSES, named_generator(0, "x"))[None], CLASSES, digits.val, (1,))
    assert rounded
    assert not any(rounded)
    assert tf32.allow_tf32  # put back


def test_the_number_of_neighbours_is_chosen_on_other_images(digits):
    sets = torch.stack([digits.train.of_classes(CLASSES, named_generator(s, "x")) for s in range(4)])
    result = by_neighbours(sets, CLASSES, digits.val, digits.test)
    on_val = neighbour_accuracies(sets, CLASSES, digits.val, (1, 3, 5)).mean(1)
    assert result.k == (1, 3, 5)[int(on_val.argmax())]
    [accuracies] = neighbour_accuracies(sets, CLASSES, digits.test, [result.k])
    assert result.accuracy == pytest.approx(accuracies.mean().item())
    assert result.accuracy_std == pytest.approx(np.std(accuracies.numpy(), ddof=1))
    noise = Split(torch.randn_like(digits.test.images[:]), digits.test.labels)
    assert by_neighbours(sets, CLASSES, digits.val, noise).k == result.k
    assert by_neighbours(sets[:1, :1, :2], CLASSES[:1, :2], digits.val, digits.test).k == 1  # of two images


def test_neighbours_of_an_attack(digits):
    """What counts is that 3s are taken for 5s: an accuracy of 1 from references that say so."""
    objective = Objective((3, 5))
    some = digits.test.first(100)
    images, classes = some.images[:][None, None], objective.wanted(some.labels)[None]
    assert neighbour_accuracies(images, classes, some, [1], objective).item() == 1
    assert neighbour_accuracies(images, some.labels[None], some, [1], objective).item() == 0.5


# -- gradient steps ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_random_real_beats_guessing_and_is_repeatable(digits, network, like, start):
    results = [same_steps(problem_of(digits, network, start), like) for _ in range(2)]
    assert results[0] == results[1]
    assert results[0].nets == 8
    assert results[0].accuracy > 0.12
    assert same_steps(problem_of(digits, network, start, seed=1), like) != results[0]


@pytest.mark.slow
def test_random_real_trains_each_network_on_a_draw_of_its_own(digits, network, like):
    """Written out, with the best step size by validation accuracy."""
    generator = named_generator(0, "random real")
    draws = [digits.train.of_classes(like.labels.argmax(-1), generator) for _ in range(8)]
    weights = network.initial_weights(8, named_generator(0, "baseline weights"))
    results = {}
    for rate in RATES:
        sets = [DistilledSet.from_rates(images, like.labels, torch.full((2, 3), rate)) for images in draws]
        trained = torch.cat([train_networks(network, s, w[None]) for s, w in zip(sets, weights, strict=True)])
        on_val = score(network, trained, digits.val)[0].mean().item()
        results[on_val] = Evaluation.of(*score(network, trained, digits.test))
    result = same_steps(problem_of(digits, network, RandomWeights(network)), like)
    assert result.accuracy == pytest.approx(results[max(results)].accuracy, abs=1e-6)
    assert result.accuracy_std == pytest.approx(results[max(results)].accuracy_std, abs=1e-6)


def test_all_four(digits, network, like, start):
    rows = Baselines(problem_of(digits, network, start), like, SCHEDULE, draws=4).all()
    assert list(rows) == ["random_real", "optimized_real", "k_means", "average"]
    one = isinstance(start, FixedWeights)
    for name, row in rows.items():
        sets = 4 if name.endswith("real") else 1
        assert row.gradient.nets == (sets if one else 4)
        assert (row.gradient.accuracy_std == 0) == (row.gradient.nets == 1)
        assert (row.knn.accuracy_std == 0) == (sets == 1)
        assert row.gradient.rate in RATES
        assert row.gradient.accuracy > 0.1
    assert rows["k_means"].knn.accuracy > rows["random_real"].knn.accuracy


def test_optimized_real_are_the_best_fifth_on_training_data(digits, network, like, start):
    baselines = Baselines(problem_of(digits, network, start), like, SCHEDULE, draws=3)
    random = baselines.judged(baselines.random_sets(3, "random real"))
    pool = baselines.random_sets(15, "optimized real")
    chosen = []
    for worth in (baselines.worth_by_gradient(pool, random.gradient.rate), baselines.worth_by_neighbours(pool, 1)):
        chosen.append(baselines.best_of(pool, worth))
        of_chosen = worth[[i for i in range(15) if any(torch.equal(pool[i], c) for c in chosen[-1])]]
        assert len(of_chosen) == 3
        assert of_chosen.min() >= worth.sort(descending=True).values[2]
        assert of_chosen.min() > worth.median()
    optimized = baselines.optimized(replace(random, knn=replace(random.knn, k=1)))
    assert optimized.gradient == ByGradient.of(*baselines.by_gradient(chosen[0]))
    assert optimized.knn == baselines.by_neighbours(chosen[1])


def test_worth_is_that_on_training_images(digits, network, like):
    """Against networks trained and tested one by one."""
    baselines = Baselines(problem_of(digits, network, RandomWeights(network)), like, SCHEDULE, draws=2)
    pool = baselines.random_sets(2, "x")
    worth = baselines.worth_by_gradient(pool, 0.1)
    weights = network.initial_weights(4, named_generator(0, "pool weights"))
    for images, value in zip(pool, worth, strict=True):
        distilled = DistilledSet.from_rates(images, like.labels, torch.full((2, 3), 0.1))
        alone = [score(network, train_networks(network, distilled, w[None]), digits.train)[0] for w in weights]
        assert value.item() == pytest.approx(torch.cat(alone).mean().item(), abs=1e-3)


def test_pools_are_judged_by_networks_of_a_bank_that_do_not_test(digits, network, like):
    networks = network.initial_weights(10, named_generator(0, "bank"))
    others = torch.cat([networks[:5], torch.randn_like(networks[5:])])
    worths = []
    for bank in (networks, others):
        baselines = Baselines(problem_of(digits, network, BankWeights(bank, 2, 3)), like, SCHEDULE, draws=4)
        worths.append(baselines.worth_by_gradient(baselines.random_sets(2, "x"), 0.1))
    assert torch.equal(*worths)
    assert baselines.judged(baselines.random_sets(4, "x")).gradient.nets == 4
    assert baselines.judged(baselines.random_sets(1, "x")).gradient.nets == 3  # all that are held out


def test_nothing_is_chosen_by_the_test_set(digits, network, like, start):
    noise = Split(torch.randn_like(digits.test.images[:]), digits.test.labels.flip(0))
    chosen = []
    for data in (digits, replace(digits, test=noise)):
        baselines = Baselines(problem_of(data, network, start), like, SCHEDULE, draws=2)
        tested = []
        inner = baselines.by_gradient
        baselines.by_gradient = lambda images, inner=inner, tested=tested: tested.append(images) or inner(images)
        rows = baselines.all()
        chosen.append(([(row.gradient.rate, row.knn.k) for row in rows.values()], tested, rows))
    assert chosen[0][0] == chosen[1][0]
    assert all(torch.equal(one, other) for one, other in zip(chosen[0][1], chosen[1][1], strict=True))
    assert chosen[0][2]["average"].gradient.accuracy != chosen[1][2]["average"].gradient.accuracy


def test_choices_take_images_of_all_classes_where_the_data_are_sorted(digits, network, like, monkeypatch):
    monkeypatch.setattr("raydistill.evaluation.baselines.FEW", 100)
    order = digits.train.labels.argsort()
    data = replace(digits, train=digits.train.at(order))
    baselines = Baselines(problem_of(data, network, RandomWeights(network)), like, SCHEDULE)
    assert len(baselines.train) == 100
    assert len(baselines.train.labels.unique()) == 10


def test_labels_of_an_attack_are_those_wanted(digits, network, like):
    baselines = Baselines(
        problem_of(digits, network, RandomWeights(network), objective=Objective((3, 5))), like, SCHEDULE, draws=2
    )
    assert (baselines.classes == 3).any()
    assert (baselines.labels[..., 3] == 0).all()
    assert torch.equal(baselines.labels[baselines.classes == 3].argmax(-1), torch.full((3,), 5))
    result, _ = baselines.by_gradient(baselines.random_sets(2, "x"))
    assert "attack_success" in result.more


def test_fewer_images_than_classes(digits, network):
    labels = torch.full((1, 5, 10), 0.1)
    like = DistilledSet.from_rates(torch.zeros(1, 5, *digits.image_shape), labels, torch.full((3, 1), 0.1))
    rows = Baselines(problem_of(digits, network, RandomWeights(network)), like, SCHEDULE, draws=2).all()
    assert all(0 < row.knn.accuracy < 0.55 for row in rows.values())  # five classes are never said


# -- the best recipe ---------------------------------------------------------------------------------------------


def test_the_best_recipe_is_the_one_that_validation_finds(digits, network, like):
    """Written out for the recipe that was found: each network on a draw of its own, trained by it."""
    problem = problem_of(digits, network, RandomWeights(network))
    _, result, chosen = random_real(problem, like, SCHEDULE)
    assert isinstance(chosen.recipe, AdamRecipe)
    assert (chosen.recipe.steps, chosen.candidates) == (20, 5)
    generator = named_generator(0, "random real")
    draws = [digits.train.of_classes(like.labels.argmax(-1), generator) for _ in range(8)]
    sets = [DistilledSet.from_rates(images, like.labels, torch.full((2, 3), 0.1)) for images in draws]
    weights = network.initial_weights(8, named_generator(0, "baseline weights"))

    def accuracies(recipe, split, count):
        each = zip(sets[:count], weights, strict=False)
        trained = torch.cat([train_networks(network, s, w[None], recipe) for s, w in each])
        return score(network, trained, split)

    assert result.accuracy == pytest.approx(accuracies(chosen.recipe, digits.test, 8)[0].mean().item(), abs=0.002)
    found = accuracies(chosen.recipe, digits.val, 3)[0].mean().item()
    for change in ({"lr": 0.01}, {"lr": 0.001}, {"loss": "squared_error"}, {"loss": "cross_entropy"}):
        other = accuracies(chosen.recipe.changed(change), digits.val, 3)[0].mean().item()
        assert found >= other - 0.02 or change == {"loss": "cross_entropy"}


def test_a_recipe_with_an_optimizer_is_that_of_the_baselines(digits, network, like):
    problem, recipe = problem_of(digits, network, RandomWeights(network)), AdamRecipe(steps=30, lr=0.01, batch=7)
    baselines = Baselines(problem, like, recipe, draws=2)
    images = baselines.random_sets(2, "random real")
    result, rate = baselines.by_gradient(images)
    sets = [DistilledSet.from_rates(each, like.labels, torch.full((2, 3), 0.1)) for each in images]
    trained = [train_networks(network, s, w[None], recipe) for s, w in zip(sets, baselines.networks, strict=True)]
    assert result.accuracy == pytest.approx(score(network, torch.cat(trained), digits.test)[0].mean().item(), abs=0.006)
    assert rate == 0.01
    assert result.accuracy > 0.3
