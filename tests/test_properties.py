"""What holds for any place, override, distribution and set of results: Hypothesis looks for one that breaks it."""

import os

import numpy as np
import optuna
import pytest
import yaml
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raydistill.config.distill_config import DistillConfig
from raydistill.config.distribution import Distribution
from raydistill.config.overrides import with_overrides
from raydistill.config.settings import validated
from raydistill.sweep.searching.search_space import distribution
from raydistill.sweep.stopping.ranking import Ranking, front_numbers
from raydistill.system.errors import UserError
from raydistill.system.storage import at_home, is_local, join, split

PHASES = (Phase.explicit, Phase.generate, Phase.shrink)
few = settings(max_examples=40, deadline=None, derandomize="CI" in os.environ, database=None, phases=PHASES)

# -- places ------------------------------------------------------------------------------------------------------------

LETTERS = st.characters(codec="utf-8", exclude_characters="/\0")
NAMES = st.text(LETTERS, min_size=1, max_size=8).filter(lambda name: name not in (".", ".."))
FOLDERS = st.builds(lambda root, parts: root + "/".join(parts), st.sampled_from(["", "/"]), st.lists(NAMES, min_size=1))
PARTS = NAMES.filter(lambda name: "?" not in name)  # in an address, a question mark begins the query
ADDRESSES = st.builds(
    lambda scheme, parts, query: f"{scheme}://{'/'.join(parts)}{query}",
    st.sampled_from(["s3", "gs"]),
    st.lists(PARTS, min_size=1, max_size=4),
    st.sampled_from(["", "?region=x", "?endpoint_override=http://127.0.0.1:9&region=x"]),
)
PLACES = st.one_of(st.tuples(FOLDERS, NAMES, NAMES), st.tuples(ADDRESSES, PARTS, PARTS))


@few
@given(PLACES)
def test_split_undoes_join_and_joins_add_up(places):
    place, name, below = places
    assert split(join(place, name)) == (place, name)
    assert join(join(place, name), below) == join(place, name, below)
    assert is_local(join(place, name)) == is_local(place)
    query = "" if is_local(place) else place.partition("?")[2]
    assert join(place, name).endswith(query)


@few
@given(FOLDERS, ADDRESSES)
def test_only_a_leading_tilde_is_the_home_folder(folder, address):
    assert at_home(f"~/{folder}") == f"{os.environ['HOME']}/{folder}"
    for place in (f"x{folder}", f"./{folder}", address):
        assert at_home(place) == place


# -- overrides ---------------------------------------------------------------------------------------------------------

KEYS = st.text("abcdef_", min_size=1, max_size=4)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("abc :#'\"[]{},~é日\n", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


def typed(value):
    """A value as it is typed in YAML."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").removesuffix("\n")


def replaced(values, names, value):
    """What is meant by an override: all stays but one value; a name inside a value that is no section stays whole."""
    name, *rest = names
    inside = values.get(name, {})
    inside = {} if inside is None else inside
    if rest and not isinstance(inside, dict):
        return {**values, ".".join(names): value}
    return {**values, name: replaced(inside, rest, value) if rest else value}


@few
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.lists(KEYS, min_size=1, max_size=3), VALUES)
@example({"a": []}, ["a", "b"], None)
def test_an_override_sets_one_value_and_leaves_the_others(values, names, value):
    before = repr(values)
    assert with_overrides(values, [f"{'.'.join(names)}={typed(value)}"]) == replaced(values, names, value)
    assert repr(values) == before


@few
@given(KEYS, VALUES, VALUES)
def test_the_last_of_two_overrides_counts(name, first, last):
    assert with_overrides({}, [f"{name}={typed(first)}", f"{name}={typed(last)}"]) == {name: last}


@few
@given(st.text())
def test_a_text_is_taken_as_it_was_typed(text):
    assert with_overrides({}, [f"dataset={text}"], DistillConfig) == {"dataset": text}


# -- distributions -----------------------------------------------------------------------------------------------------


def ranges(kind, numbers):
    return st.tuples(numbers, numbers).map(lambda ends: {kind: sorted(ends)})


POSITIVE = st.floats(1e-6, 1e6)
DISTRIBUTIONS = st.one_of(
    ranges("int", st.integers(-1000, 1000)),
    ranges("logint", st.integers(1, 1000)),
    ranges("uniform", st.floats(-1e6, 1e6)),
    ranges("loguniform", POSITIVE),
    st.lists(st.booleans() | st.integers() | POSITIVE | st.text(), min_size=1, max_size=4).map(lambda c: {"choice": c}),
)


@few
@given(DISTRIBUTIONS, st.integers(0, 2**32 - 1))
def test_what_optuna_draws_is_in_the_distribution(written, seed):
    ours = validated(Distribution, written)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(5):
        drawn = study.ask({"x": distribution(ours)}).params["x"]
        assert ours.contains(drawn)
        assert "int" not in ours.kind or isinstance(drawn, int)


@few
@given(DISTRIBUTIONS)
def test_a_distribution_holds_its_ends_and_is_written_as_it_was_read(written):
    ours = validated(Distribution, written)
    assert ours.model_dump(mode="json") == written
    assert validated(Distribution, ours.model_dump(mode="json")) == ours
    assert all(ours.contains(end) for end in ours.ends)
    if ours.kind != "choice":
        low, high = ours.ends
        assert not ours.contains(low - 1)
        assert not ours.contains(high + 1)
        assert not ours.contains(str(low))
        assert not ours.contains(True)
        assert "int" not in ours.kind or not ours.contains(float(low))


@few
@given(st.integers(1, 10), st.integers(1, 10), st.sampled_from(["int", "logint", "uniform", "loguniform"]))
def test_ends_in_the_wrong_order_are_refused(low, more, kind):
    with pytest.raises(UserError, match="is above high"):
        validated(Distribution, {kind: [low + more, low]})


# -- ranking -----------------------------------------------------------------------------------------------------------

GRID = st.integers(0, 4).map(float)  # few values, so that many results are equal
COSTS = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(float, shape, elements=st.one_of(GRID, st.floats(-1e3, 1e3)))
)


def fronts_by_definition(costs):
    """Front 0 are the results that none beats, front 1 those that none of the others beats, and so on."""
    numbers, left, number = np.zeros(len(costs), int), np.arange(len(costs)), 0
    while left.size:
        beaten = [((costs[left] <= x).all(1) & (costs[left] < x).any(1)).any() for x in costs[left]]
        numbers[left[np.logical_not(beaten)]] = number
        left, number = left[beaten], number + 1
    return numbers


@few
@given(COSTS)
def test_fronts_are_those_of_the_definition(costs):
    numbers = front_numbers(costs)
    assert numbers.tolist() == fronts_by_definition(costs).tolist()
    ranking = Ranking(costs)
    assert [ranking.place(x)[0] for x in costs] == numbers.tolist()


@few
@given(COSTS, st.randoms(use_true_random=False))
def test_fronts_depend_on_comparisons_alone(costs, random):
    """Not on the order of results or objectives, nor on their scales, nor on how often a result is there."""
    numbers = front_numbers(costs)
    rows, columns = (random.sample(range(size), size) for size in costs.shape)
    assert front_numbers(costs[rows][:, columns]).tolist() == numbers[rows].tolist()
    ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in costs.T], 1)
    assert front_numbers(np.exp2(ranks.astype(float))).tolist() == numbers.tolist()
    assert front_numbers(np.concatenate([costs, costs])).tolist() == [*numbers, *numbers]


@few
@given(COSTS, st.integers(-8, 8))
def test_places_do_not_depend_on_the_unit(costs, power):
    scaled = costs * 2.0**power
    assert [Ranking(costs).place(x) for x in costs] == [Ranking(scaled).place(x) for x in scaled]
