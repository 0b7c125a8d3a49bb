"""Banks of pretrained networks: their training, their files, and distilling and evaluating with them."""

import json
import math
import resource
import signal
import subprocess
import sys

import pyarrow as pa
import pytest
import torch

from raydistill import evaluate
from raydistill.config.distill_config import DistillConfig
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.settings import validated
from raydistill.data import Dataset
from raydistill.evaluation.accuracy import score
from raydistill.method.initial_weights import BankWeights
from raydistill.method.rng import named_generator
from raydistill.networks.lenet import LeNet
from raydistill.runs.distillation import distill
from raydistill.runs.pretraining import BankTrainer, pretrain
from raydistill.runs.watcher import PretrainWatcher
from raydistill.store.bank import load_bank, same_classes
from raydistill.system.errors import Stopped, UserError

CONFIG = PretrainConfig(nets=7, chunk=4, epochs=2, batch_size=64, lr=3e-3)


@pytest.fixture(scope="module")
def bank(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    pretrain(CONFIG, folder, data=digits)
    return folder


def test_each_network_is_trained_as_torch_would(digits, tmp_path):
    """The third of a chunk, against a plain module with torch.optim.Adam on the same order of images."""
    trainer = BankTrainer(CONFIG, digits)
    module = LeNet(digits.image_shape, 10)
    start = trainer.network.initial_weights(1, named_generator(0, "network 2"))[0]
    module.load_state_dict(trainer.network.unflatten(start))
    optimizer = torch.optim.Adam(module.parameters(), lr=CONFIG.lr)
    steps = len(digits.train) // 64
    for epoch in range(2):
        order = torch.randperm(len(digits.train), generator=named_generator(0, f"order 2 {epoch}"))
        for step, index in enumerate(order[: steps * 64].split(64)):
            done = (epoch * steps + step) / (2 * steps)
            optimizer.param_groups[0]["lr"] = CONFIG.lr * 0.5 * (1 + math.cos(math.pi * done))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(digits.train.images[index]), digits.train.labels[index]).backward()
            optimizer.step()
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    ours = trainer.train_chunk(0, tmp_path)[2]
    # Adam turns a gradient of rounding errors into a step of full length: compare what the networks say
    logits = [trainer.network(w, digits.test.images[:]) for w in (expected, ours)]
    assert (logits[0] - logits[1]).abs().mean() < 0.02 * logits[0].abs().mean()
    assert ((expected - ours).abs() < 1e-4).float().mean() > 0.95


class Told(PretrainWatcher):
    """Keeps what it is told, and does something after each epoch."""

    def __init__(self, act=lambda: None):
        self.epochs, self.act = [], act

    def on_epoch(self, first, epoch, loss):
        self.epochs.append((first, epoch, loss))
        self.act()


@pytest.mark.slow
@pytest.mark.parametrize("stops", [1, 2, 3])  # in the first chunk, between the two, in the second
def test_stopped_and_resumed_is_bit_identical(digits, bank, tmp_path, stops):
    told, asked = Told(), []

    def stop():
        """Two steps into an epoch."""
        asked.append(len(told.epochs))
        return asked.count(stops) > 2

    with pytest.raises(Stopped):
        pretrain(CONFIG, tmp_path, data=digits, stop=stop, watchers=(told,))
    told.epochs.clear()
    assert not (tmp_path / "manifest.json").exists()
    with pytest.raises(UserError, match="is no bank"):
        load_bank(tmp_path)
    pretrain(CONFIG, tmp_path, data=digits, watchers=(told,))
    assert len(told.epochs) == 4 - stops  # epochs that were done are not done again
    assert torch.equal(load_bank(tmp_path).networks, load_bank(bank).networks)
    assert load_bank(tmp_path).manifest.sha256 == load_bank(bank).manifest.sha256
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_checkpoint_cut_short_leaves_the_one_before(digits, bank, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = Told(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1])))
    try:
        with pytest.raises(OSError, match="File too large"):
            pretrain(CONFIG, tmp_path, data=digits, watchers=(full,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = Told()
    pretrain(CONFIG, tmp_path, data=digits, watchers=(told,))
    assert len(told.epochs) == 3  # the first epoch is not done again
    assert torch.equal(load_bank(tmp_path).networks, load_bank(bank).networks)


@pytest.mark.slow
def test_a_process_killed_in_the_middle_of_its_checkpoint_leaves_the_one_before(digits, bank, tmp_path):
    """By the signal that the system sends where a file grows beyond a limit, while the second one is written."""
    script = f"""
import resource, signal
from raydistill import PretrainConfig, pretrain
from raydistill.runs.watcher import PretrainWatcher
class Killer(PretrainWatcher):
    def on_epoch(self, first, epoch, loss):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, -1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
pretrain(PretrainConfig.model_validate_json({CONFIG.model_dump_json()!r}), {str(tmp_path)!r}, watchers=(Killer(),))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    assert list(tmp_path.glob("checkpoint.pt.partial-*"))  # it was in the middle
    told = Told()
    pretrain(CONFIG, tmp_path, data=digits, watchers=(told,))
    assert len(told.epochs) == 3  # the first epoch is not done again
    assert torch.equal(load_bank(tmp_path).networks, load_bank(bank).networks)
    assert not list(tmp_path.glob("*partial*"))


def test_networks_differ_and_have_learned(digits, bank):
    loaded = load_bank(bank)
    network = BankTrainer(CONFIG, digits).network
    accuracies, _ = score(network, loaded.networks, digits.test)
    assert loaded.networks.shape == (7, network.num_weights)
    assert loaded.manifest.metrics["test_accuracy"] == pytest.approx(accuracies.mean().item(), abs=1e-6)
    assert loaded.manifest.metrics["test_accuracy_std"] == pytest.approx(accuracies.std().item(), abs=1e-6)
    assert accuracies.min() > 0.4
    assert len(torch.unique(loaded.networks[:, 0])) == 7


def test_pyarrow_alone_reads_it(bank):
    table = pa.ipc.open_file(pa.memory_map(str(bank / "networks-00001.arrow"))).read_all()
    assert table.column_names == ["weights", "val_accuracy", "test_accuracy"]
    assert torch.equal(torch.tensor(table["weights"].to_pylist()), load_bank(bank).networks[4:])
    shapes = json.loads((bank / "manifest.json").read_text())["shapes"]
    assert sum(math.prod(shape) for shape in shapes.values()) == load_bank(bank).networks.shape[1]


def copied(bank, to):
    for file in bank.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize("harm", ["change", "cut", "remove", "json", "version", "other table"])
def test_damage_is_named(bank, tmp_path, harm):
    folder = copied(bank, tmp_path)
    file, manifest = folder / "networks-00001.arrow", folder / "manifest.json"
    content = file.read_bytes()
    match harm:
        case "change":
            file.write_bytes(content[:-100] + b"x" + content[-99:])
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "remove":
            file.unlink()
        case "json":
            manifest.write_text("[]")
        case "version":
            manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 9'))
        case _:
            import hashlib

            from raydistill.store.ipc import to_ipc

            other = to_ipc(pa.table({"weights": [1, 2]}))
            old = hashlib.sha256(content).hexdigest()
            file.write_bytes(other)
            manifest.write_text(manifest.read_text().replace(old, hashlib.sha256(other).hexdigest()))
    with pytest.raises(UserError, match="bank="):
        load_bank(folder)


def test_another_bank_is_not_overwritten(bank, digits, tmp_path):
    with pytest.raises(UserError, match="begun with another epochs"):
        pretrain(CONFIG.model_copy(update={"epochs": 3}), bank, data=digits)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not an empty folder"):
        pretrain(CONFIG, tmp_path, data=digits)
    with pytest.raises(UserError, match="batch_size=5000"):
        pretrain(CONFIG.model_copy(update={"batch_size": 5000}), tmp_path / "new", data=digits)


def test_draws_are_distinct_and_tests_are_held_out():
    networks = torch.arange(20.0)[:, None]
    start = BankWeights(networks, validation=3, test=5)
    generator = named_generator(0, "x")
    drawn = torch.cat([start.sample(4, generator) for _ in range(60)]).view(60, 4)
    assert all(len(set(row.tolist())) == 4 for row in drawn)
    assert set(drawn.flatten().tolist()) == set(range(12))
    assert start.held_out(3, "validation", 0).flatten().tolist() == [12, 13, 14]
    assert start.held_out(9, "test", 0).flatten().tolist() == [15, 16, 17, 18, 19]


@pytest.mark.slow
def test_distil_for_a_bank_and_test_on_the_networks_it_held_out(small, digits, bank, tmp_path):
    update = {"weights": "random_pretrained", "bank": str(bank), "train_nets": 2, "val_nets": 2, "test_nets": 3}
    config = small.changed(update)
    artifact = distill(config, out=tmp_path / "run", data=digits)
    networks = load_bank(bank).networks
    accuracies, _ = score(BankTrainer(CONFIG, digits).network, networks[-3:], digits.test)
    assert artifact.metrics["test_accuracy_before"] == pytest.approx(accuracies.mean().item(), abs=1e-6)
    assert artifact.metrics["nets"] == 3
    assert artifact.weights is None
    again = evaluate(artifact, data=digits)
    assert again.accuracy == artifact.metrics["test_accuracy"]
    assert again.more["accuracy_before"] == artifact.metrics["test_accuracy_before"]
    with pytest.raises(UserError, match=r"nets=4: bank=.* has only 3 networks"):
        evaluate(artifact, nets=4, data=digits)
    with pytest.raises(UserError, match=r"holds 7 networks, but train_nets=4, val_nets=2 and test_nets=3 need 9"):
        distill(config.model_copy(update={"train_nets": 4}), data=digits)


@pytest.mark.slow
def test_evaluate_on_another_bank(small, digits, bank, tmp_path):
    other = tmp_path / "other"
    pretrain(CONFIG.model_copy(update={"seed": 1, "nets": 3, "epochs": 1}), other, data=digits)
    artifact = distill(small, data=digits)
    result = evaluate(artifact, bank=str(other), nets=3, data=digits)
    accuracies, _ = score(BankTrainer(CONFIG, digits).network, load_bank(other).networks, digits.test)
    assert result.nets == 3
    assert result.more["accuracy_before"] == pytest.approx(accuracies.mean().item(), abs=1e-6)


def test_fixed_pretrained_takes_one_network_and_keeps_it(small, digits, bank):
    update = {"weights": "fixed_pretrained", "bank": str(bank), "seed": 9}
    artifact = distill(small.changed(update), data=digits)
    kept = torch.cat([w.flatten() for w in artifact.weights.values()])
    assert torch.equal(kept, load_bank(bank).networks[9 % 7])
    assert evaluate(artifact, data=digits).accuracy == artifact.metrics["test_accuracy"]


@pytest.mark.slow
def test_attack_reports_before_and_after(small, digits, bank):
    update = {"weights": "fixed_pretrained", "bank": str(bank), "iterations": 60}
    update |= {
        "objective": {"name": "attack", "attacked": 7, "target": "2"},
        "eval_every": 20,
        "outer_lr": 0.05,
        "batch_size": 128,
    }
    artifact = distill(small.changed(update), data=digits)
    metrics = artifact.metrics
    for name in ("class_accuracy", "attack_success", "other_accuracy"):
        assert 0 <= metrics[f"test_{name}"] <= 1
        assert 0 <= metrics[f"test_{name}_before"] <= 1
    assert metrics["test_attack_success"] > metrics["test_attack_success_before"]
    assert metrics["val_accuracy"] == pytest.approx((metrics["val_attack_success"] + metrics["val_other_accuracy"]) / 2)


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"bank": "nowhere"}, "bank=nowhere: is no bank of networks .it has no manifest.json.; raydistill pretrain"),
        (
            {"network": "convnet", "network.depth": 2},
            "was made for network=lenet on images of 1x8x8, not for network=convnet",
        ),
        (
            {"objective": {"name": "attack", "attacked": 11, "target": 1}},
            "objective.attacked=11: there is no such class",
        ),
    ],
)
def test_what_does_not_go_together(small, digits, bank, update, words):
    config = small.changed({"weights": "fixed_pretrained", "bank": str(bank)} | update)
    with pytest.raises(UserError, match=words):
        distill(config, data=digits)


@pytest.mark.slow
def test_the_target_is_brought_to_the_size_and_channels_of_the_source(small, tmp_path):
    """As from SVHN, 3 x 32 x 32, to MNIST, 1 x 28 x 28; here 3 x 12 x 12 and 1 x 8 x 8."""
    source = validated(
        PretrainConfig,
        {"dataset": "digits", "data": {"image_size": 12, "channels": 3}, "nets": 4, "epochs": 1, "chunk": 4},
    )
    pretrain(source, tmp_path / "bank")
    update = {"objective": "adapt", "weights": "random_pretrained", "bank": str(tmp_path / "bank")}
    artifact = distill(small.changed(update | {"val_nets": 1, "test_nets": 2, "iterations": 2}))
    assert artifact.image_shape == (3, 12, 12)
    assert (artifact.config.data.image_size, artifact.config.data.channels) == (12, 3)
    assert evaluate(artifact).accuracy == artifact.metrics["test_accuracy"]  # reads the data itself
    with pytest.raises(UserError, match="on images of 3x12x12, not for network=lenet on 1x8x8"):
        distill(small.changed(update | {"data.image_size": 8, "data.channels": 1}))


def test_source_and_target_with_other_classes(small, digits, bank):
    from dataclasses import replace

    clothes: Dataset = replace(digits, class_names=tuple(f"cloth {i}" for i in range(10)))
    config = small.changed({"weights": "fixed_pretrained", "bank": str(bank), "objective": "adapt"})
    with pytest.raises(UserError, match=r"dataset=digits has the classes cloth 0, .* trained on digits, with 0, 1"):
        distill(config, data=clothes)
    assert same_classes(("3 - three", "Cat"), ("3", "cat"))
    assert not same_classes(("3 - three", "Cat"), ("3",))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weights": "random_pretrained"}, "weights=random_pretrained needs bank=FOLDER"),
        ({"bank": "b"}, "bank=b needs weights=fixed_pretrained or random_pretrained"),
        ({"objective": "adapt"}, "objective=adapt needs weights=fixed_pretrained"),
        ({"weights": "fixed_pretrained", "bank": "b", "objective": "attack"}, "objective.attacked: is needed with"),
        (
            {"weights": "fixed_pretrained", "bank": "published"}
            | {"objective": {"name": "attack", "attacked": 1, "target": 2}},
            "those of bank=published do not",
        ),
        ({"objective.attacked": 1}, "there is no such setting with objective=classify or adapt"),
        ({"images.per_step": 5, "images_per_class": 2}, "set only one of them"),
        ({"labels.lr": 0.1}, "labels.lr: .* it is one of labels=softmax or free"),
        ({"weights": "fixed_pretrained", "bank": "b", "train_nets": 2}, "with fixed_pretrained all are the same"),
    ],
)
def test_settings_that_do_not_go_together(values, words):
    with pytest.raises(UserError, match=words):
        validated(DistillConfig, values)


@pytest.mark.slow
def test_other_numbers_of_epochs(small, digits):
    artifact = distill(small.changed({"recipe": "schedule"}), data=digits)
    with pytest.raises(UserError, match="epochs=0: at least 1"):
        evaluate(artifact, epochs=0, data=digits)
    longer = artifact.distilled.with_epochs(5)
    assert torch.equal(longer.raw_rates[:2], artifact.distilled.raw_rates)
    assert torch.equal(longer.raw_rates[4], artifact.distilled.raw_rates[0])
    assert len(list(longer.batches())) == 5 * small.steps
    assert evaluate(artifact, epochs=2, data=digits) == evaluate(artifact, data=digits)
    assert evaluate(artifact, epochs=5, data=digits) != evaluate(artifact, data=digits)
