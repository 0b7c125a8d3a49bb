"""Published weights, from files in torchvision's own form in the place where torch.hub keeps them."""

import pytest
import torch
from torchvision import models

from raydistill.config.distill_config import DistillConfig
from raydistill.method.rng import named_generator
from raydistill.networks import build_network
from raydistill.system.errors import UserError

FILES = {
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
    "shufflenet_v2_x0_5": "shufflenetv2_x0.5-f707e7126e.pth",
    "mnasnet0_5": "mnasnet0.5_top1_67.823-3ffadce67e.pth",
    "densenet121": "densenet121-a639ec97.pth",
}
HEADS = {"squeezenet1_1": "classifier.1", "shufflenet_v2_x0_5": "fc", "mnasnet0_5": "classifier.1"}


def config_of(name, **update):
    about = {"network": f"torchvision:{name}", "weights": "fixed_pretrained", "bank": "published"}
    return DistillConfig(**about | update)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub's folder of downloads, empty, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no network here")))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def publish(hub, name, old_format=False):
    """Writes a file such as torchvision's; returns the network that it is of."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = models.get_model(name, weights=None).eval()
    for key, buffer in module.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=named_generator(0, key)) + 0.5)
    torch.save(module.state_dict(), hub / FILES[name], _use_new_zipfile_serialization=not old_format)
    return module


def weights_of(config, classes=7, count=1, size=64, name="w"):
    network = build_network(config, (3, size, size), classes)
    return network, network.initial_weights(count, named_generator(0, name))


@pytest.mark.parametrize(
    ("name", "old_format"), [("squeezenet1_1", True), ("shufflenet_v2_x0_5", False), ("mnasnet0_5", False)]
)
def test_all_but_the_last_layer_is_as_published(hub, name, old_format):
    state = publish(hub, name, old_format).state_dict()
    network, [first, second] = weights_of(config_of(name), count=2)
    head = HEADS[name]
    for part, (key, tensor) in enumerate(network.unflatten(first).items()):
        other = network.unflatten(second)[key]
        if not key.startswith(head):
            assert torch.equal(tensor, state[key]), part
            assert torch.equal(other, tensor)
        elif key.endswith("bias"):
            assert not tensor.any()
        else:
            assert not torch.equal(other, tensor)
            assert tensor.std().item() == pytest.approx((2 / (7 + tensor.shape[1])) ** 0.5, rel=0.1)  # Xavier


def test_same_logits_as_torchvision_with_the_same_head(hub):
    module = publish(hub, "shufflenet_v2_x0_5")
    network, [weights] = weights_of(config_of("shufflenet_v2_x0_5"), classes=5)
    module.fc = torch.nn.Linear(1024, 5)
    module.load_state_dict(network.unflatten(weights))  # all there, as the names say
    images = torch.randn(2, 3, 64, 64, generator=named_generator(0, "x"))
    assert torch.allclose(network(weights, images), module(images), rtol=1e-4, atol=1e-5)


def test_the_last_layer_is_drawn_even_for_as_many_classes(hub):
    state = publish(hub, "squeezenet1_1").state_dict()
    config = config_of("squeezenet1_1", **{"network.init": {"name": "constant", "gain": 0.5}})
    network, [weights] = weights_of(config, classes=1000)
    head = network.unflatten(weights)["classifier.1.weight"]
    assert head.shape == state["classifier.1.weight"].shape
    assert (head == 0.5).all()


def test_two_classes_have_one_output(hub):
    publish(hub, "squeezenet1_1")
    network, [weights] = weights_of(config_of("squeezenet1_1"), classes=2)
    assert network.unflatten(weights)["classifier.1.weight"].shape == (1, 512, 1, 1)
    assert network(weights, torch.zeros(3, 3, 64, 64)).shape == (3, 2)


@pytest.mark.slow
def test_old_names_of_densenet(hub):
    """Its files say denselayer1.norm.1 for what is norm1 now."""
    state = publish(hub, "densenet121").state_dict()
    names = {name: name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.") for name in state}
    torch.save({names[name]: tensor for name, tensor in state.items()}, hub / FILES["densenet121"])
    network, [weights] = weights_of(config_of("densenet121"))
    assert any("norm.1." in name for name in names.values())
    for name, tensor in network.unflatten(weights).items():
        assert name.startswith("classifier.") or torch.equal(tensor, state[name])


def damaged(hub, name):
    (hub / FILES[name]).write_bytes(b"not weights")


def pickled(hub, name):
    """A file that would run code when loaded."""
    torch.save({"fc.weight": Trap()}, hub / FILES[name])


class Trap:
    def __reduce__(self):
        return pytest.fail, ("code in a file of weights was run",)


def half(hub, name):
    state = dict(list(publish(hub, name).state_dict().items())[:10])
    torch.save(state, hub / FILES[name])


def of_another(hub, name):
    torch.save({key: t[..., :1] for key, t in publish(hub, name).state_dict().items()}, hub / FILES[name])


def a_list(hub, name):
    torch.save([1, 2], hub / FILES[name])


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda hub, name: None, "bank=published: https://.*cannot be downloaded.*no network here.*TORCH_HOME"),
        (damaged, "cannot be read as weights; delete it"),
        (pickled, "cannot be read as weights; delete it"),
        (half, "does not hold weights of network=torchvision:squeezenet1_1: .* is missing"),
        (of_another, "does not hold weights of network=torchvision:squeezenet1_1: size mismatch"),
        (a_list, "does not hold weights of network=torchvision:squeezenet1_1"),
    ],
)
def test_what_cannot_be_read_is_said(hub, write, words):
    write(hub, "squeezenet1_1")
    with pytest.raises(UserError, match=words) as error:
        weights_of(config_of("squeezenet1_1"))
    assert "\n" not in str(error.value)
    assert str(hub) in str(error.value)


def test_networks_without_published_weights(hub, tiny_classifiers):
    with pytest.raises(UserError, match="publishes no weights of network=torchvision:tiny_plain"):
        weights_of(config_of("tiny_plain"), size=8)
    with pytest.raises(
        UserError, match="bank=published: is for network=torchvision:NAME; nobody publishes weights of lenet"
    ):
        weights_of(config_of("lenet", network="lenet"), size=8)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["fixed_pretrained", "random_pretrained"])
def test_from_start_to_end(hub, tiny_classifiers, tmp_path, weights):
    """Distil for a published network with batch normalisation, save, load, test."""
    from raydistill import distill, evaluate, load

    module = models.get_model("tiny_norm", weights=None, num_classes=2)
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=named_generator(0, name)) + 0.5)
    torch.save(module.state_dict(), hub / "tiny-01234567.pth")
    config = config_of(
        "tiny_norm",
        weights=weights,
        data={"channels": 3},
        iterations=4,
        eval_every=2,
        batch_size=16,
        val_nets=2,
        test_nets=3,
    )
    made = distill(config, out=tmp_path / "run")
    artifact = load(tmp_path / "run" / "best.distilled")
    same = evaluate(artifact)
    assert same.accuracy == pytest.approx(made.metrics["test_accuracy"], abs=1e-6)
    assert same.nets == (1 if weights == "fixed_pretrained" else 3)
    if artifact.weights is not None:
        module = models.get_model("tiny_norm", weights=None, num_classes=10)
        module.load_state_dict(artifact.weights)
        assert torch.equal(module[1].running_var, torch.load(hub / "tiny-01234567.pth")["1.running_var"])
    other = evaluate(artifact, weights="random_pretrained", bank="published", nets=2, seed=1)
    assert other.nets == 2
    assert evaluate(artifact, network="lenet", nets=2).nets == 2
    with pytest.raises(UserError, match="has batch normalisation"):
        evaluate(artifact, weights="random", nets=2)
