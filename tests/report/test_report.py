"""Pictures show what they claim to."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from raydistill.report.figures import artifact_grid, image_grid, pareto_front, step_sizes, stretched, write_figure
from raydistill.runs.distillation import distill
from raydistill.system.errors import UserError
from raydistill.system.storage import join, open_place, read_file


def test_stretched_uses_the_whole_range():
    image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 50 + 7
    shown = stretched(image)
    assert shown.min() == 0
    assert shown.max() == 1
    order = image.flatten().argsort()
    assert (shown.flatten()[order].diff() >= 0).all()  # brighter stays brighter
    assert torch.isfinite(stretched(torch.zeros(1, 4, 4))).all()


def test_grid_has_a_cell_an_image_and_its_class():
    labels = torch.eye(3).repeat(2, 1, 1)
    figure = image_grid(torch.rand(2, 3, 1, 5, 5), labels, ("ant", "bee", "cat"), torch.rand(4, 2))
    assert len(figure.axes) == 6
    assert [ax.get_title() for ax in figure.axes[:3]] == ["ant", "bee", "cat"]
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (5, 5)


def test_soft_labels_are_titled_by_their_two_largest_parts():
    labels = torch.tensor([[[0.7, 0.1, 0.2], [-0.5, 1.25, 0.5]]])
    figure = image_grid(torch.rand(1, 2, 1, 5, 5), labels, ("0 - zero", "bee", "cat"))
    assert [ax.get_title() for ax in figure.axes] == ["0 0.70\ncat 0.20", "bee 1.25\ncat 0.50"]


@pytest.mark.slow
def test_large_sets_are_cut():
    figure = image_grid(torch.rand(20, 50, 3, 4, 4), torch.eye(50).repeat(20, 1, 1), [str(i) for i in range(50)])
    assert len(figure.axes) == 12 * 20


@pytest.mark.slow
def test_one_large_minibatch_is_drawn_in_rows_of_ten_with_a_title_for_each_image():
    """As ridge regression learns it: there are no step sizes to show."""
    classes = torch.arange(50) // 5
    images = torch.rand(1, 50, 1, 5, 5)
    figure = image_grid(images, torch.eye(10)[classes][None], [str(i) for i in range(10)], torch.empty(0, 1))
    assert [ax.get_title() for ax in figure.axes] == [str(i) for i in classes.tolist()]
    assert figure.axes[10].get_position().y0 < figure.axes[9].get_position().y0
    assert not any(ax.get_ylabel() for ax in figure.axes)


def test_step_sizes_are_in_the_order_of_use():
    rates = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    line = step_sizes(rates).axes[0].lines[0]
    assert np.allclose(line.get_ydata(), [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("objectives", [{"val_accuracy": "max", "num_images": "min"}, {"val_accuracy": "max"}])
def test_front_draws_all_trials_and_the_front(objectives):
    rows = [{"val_accuracy": a, "num_images": n} for a, n in ((0.5, 20), (0.4, 10), (0.3, 10))]
    axes = pareto_front(rows, rows[:2], objectives).axes[0]
    assert len(axes.lines[0].get_xdata()) == 3
    assert len(axes.lines[1].get_xdata()) == 2


def test_random_real_images_stand_beside_the_front():
    tested = {"baseline_same_steps": 0.2, "baseline_best_recipe": 0.35}
    rows = [{"val_accuracy": 0.5, "num_images": 20, "tested": tested}, {"val_accuracy": 0.4, "num_images": 10}]
    axes = pareto_front(rows, rows, {"val_accuracy": "max", "num_images": "min"}).axes[0]
    assert [list(line.get_xydata()[0]) for line in axes.lines[2:]] == [[20, 0.2], [20, 0.35]]
    assert ["random real" in text.get_text() for text in axes.get_legend().get_texts()] == [False, False, True, True]
    assert len(pareto_front(rows, rows, {"num_images": "min"}).axes[0].lines) == 2  # no accuracies are drawn there


def test_a_picture_says_how_good_the_set_is(small, digits):
    artifact = distill(small, data=digits)
    title = artifact_grid(artifact).get_suptitle()
    values = [artifact.metrics[n] for n in ("test_accuracy", "baseline_same_steps", "baseline_best_recipe")]
    assert re.findall(r"[\d.]+(?=%)", title) == [f"{100 * value:.1f}" for value in values]
    untested = replace(artifact, metrics={"val_accuracy": 0.5})
    assert artifact_grid(untested).get_suptitle() == ""


def test_pictures_are_written_or_refused(tmp_path):
    write_figure(step_sizes(torch.rand(2, 2)), tmp_path / "new" / "a.png")
    assert Image.open(io.BytesIO((tmp_path / "new" / "a.png").read_bytes())).format == "PNG"
    with pytest.raises(UserError, match=r"a\.xyz"):
        write_figure(step_sizes(torch.rand(2, 2)), tmp_path / "a.xyz")


def test_pictures_go_to_object_stores_too(s3):
    address = join(s3, "new", "a.png")
    write_figure(step_sizes(torch.rand(2, 2)), address)
    assert Image.open(io.BytesIO(read_file(*open_place(address)))).format == "PNG"


def test_a_long_log_has_few_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from raydistill.method import DistilledSet
    from raydistill.report.tensorboard import TensorBoard

    tiny = DistilledSet.from_rates(torch.rand(1, 2, 1, 4, 4), torch.eye(2)[None], torch.full((1, 1), 0.1))
    board = TensorBoard(tmp_path, ("a", "b"), lambda images: images)
    for iteration in range(1, 100):
        board.pictures(tiny, iteration, always=iteration == 99)
    board.close()
    events = EventAccumulator(str(tmp_path), {"images": 0})
    events.Reload()
    assert [event.step for event in events.Images("distilled images")] == [1, 11, 22, 44, 88, 99]
