"""Artifacts and banks that somebody made to do harm: each is refused in a line, at once, with little memory."""

import hashlib
import json
import resource
import shutil
import signal
from contextlib import contextmanager, suppress

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from raydistill import evaluate
from raydistill.cli import app
from raydistill.config.distill_config import DistillConfig
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.recipe_settings import Choice
from raydistill.config.settings import flat
from raydistill.runs.distillation import distill
from raydistill.runs.pretraining import pretrain
from raydistill.store.arrow import nested
from raydistill.store.artifact import load
from raydistill.store.bank import load_bank
from raydistill.store.ipc import to_ipc
from raydistill.system.errors import UserError

SECONDS, BYTES = 5, 2**31


@contextmanager
def bounds():
    """What is done within ends with an error when it takes longer than SECONDS or more than BYTES."""

    def too_long(*_):
        raise AssertionError(f"took more than {SECONDS} s")

    old = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, old[1]))
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, old)


@pytest.fixture(scope="module")
def sound(digits, tmp_path_factory):
    """A sound artifact, and a sound bank."""
    folder = tmp_path_factory.mktemp("sound")
    config = DistillConfig(iterations=2, eval_every=2, batch_size=32, steps=2, epochs=2, choice=Choice(steps=3))
    distill(config, out=folder / "run", data=digits)
    pretrain(PretrainConfig(nets=5, chunk=5, epochs=1), folder / "bank", data=digits)
    return folder


@pytest.fixture
def artifact(sound, tmp_path):
    return shutil.copytree(sound / "run" / "best.distilled", tmp_path / "a.distilled")


@pytest.fixture
def bank(sound, tmp_path):
    return shutil.copytree(sound / "bank", tmp_path / "bank")


def refused(read, folder):
    """The line with which `folder` is refused."""
    with pytest.raises(UserError) as error, bounds():
        read(folder)
    line = str(error.value)
    assert str(folder) in line
    assert len(line.splitlines()) == 1
    assert len(line) < 4000
    assert "malloc" not in line
    return line


def nest(depth):
    return "[" * depth + "]" * depth


MANIFESTS = {  # name -> what becomes of the text
    "nothing": lambda text: "",
    "no mapping": lambda text: "[]",
    "null": lambda text: "null",
    "cut off": lambda text: text[:-20],
    "another encoding": lambda text: text.encode("utf-16"),
    "no encoding": lambda text: text.encode().replace(b'"config"', b'"\xff\xfe"'),
    "lone surrogate": lambda text: text.replace('"class_names": [', '"class_names": ["\\ud800",'),
    "deep": lambda text: nest(100_000),
    "deep in a mapping": lambda text: '{"config": ' * 100_000,
    "deep in config": lambda text: text.replace('"config": {', f'"config": {{"dataset": {nest(900)},'),
    "deep in provenance": lambda text: text.replace('"provenance": {', f'"provenance": {{"x": {nest(900)},'),
    "twice": lambda text: text.replace('"sha256"', '"mean": [0.5], "sha256"'),
    "twice, in config": lambda text: text.replace('"config": {', '"config": {"epochs": 2,'),
    "many unknown settings": lambda text: text.replace(
        '"config": {', '"config": {' + "".join(f'"x{i}": 1, ' for i in range(100_000))
    ),
    "many names": lambda text: text.replace('"class_names": [', '"class_names": [' + '"x",' * 1_000_000),
    "many digits": lambda text: text.replace('"epochs": 2', '"epochs": ' + "9" * 100_000),
    "no format": lambda text: text.replace('"format_version"', '"version"'),
    "a name too many": lambda text: text.replace('"config"', '"hack": 1, "config"', 1),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(artifact, name):
    file = artifact / "manifest.json"
    text = MANIFESTS[name](file.read_text())
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "manifest.json" in refused(load, artifact) or name == "many names"


@pytest.mark.parametrize("name", [name for name in MANIFESTS if "config" not in name and "setting" not in name])
def test_manifests_of_banks(bank, name):
    file = bank / "manifest.json"
    text = MANIFESTS[name](
        file.read_text().replace('"sha256"', '"mean": 1, "sha256"' if name == "twice" else '"sha256"')
    )
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    if name in ("many names", "many digits"):  # what a bank says of its classes and training is not used to load it
        load_bank(bank)
    else:
        assert "bank=" in refused(load_bank, bank)


def change(folder, path, value):
    """Puts a value into a manifest; json.dumps writes NaN and Infinity as they are."""
    file = folder / "manifest.json"
    values = place = json.loads(file.read_text())
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    file.write_text(json.dumps(values))


ABSURD = [10**12, 10**30, 2**31, 2**63, -1, 0, 2.0, 0.5, 1e300, float("inf"), float("nan"), "2", True, [2], {"a": 2}]
SIZES = [
    "steps",
    "epochs",
    "images_per_class",
    "images.per_step",
    "data.image_size",
    "network.width",
    "network.depth",
    "val_nets",
    "test_nets",
]


@pytest.mark.parametrize("value", ABSURD, ids=str)
@pytest.mark.parametrize("name", SIZES)
def test_absurd_sizes(artifact, name, value):
    change(artifact, ["config", *name.split(".")], value)
    line = refused(load, artifact)
    assert any(words in line for words in (name, "minibatches of", "epochs of", "for a number"))


@pytest.mark.slow
def test_absurd_settings_do_no_harm(artifact, digits):
    """Whatever else a config says is refused, or is of no consequence."""
    text = (artifact / "manifest.json").read_text()
    for name in sorted({*DistillConfig.model_fields, *flat(DistillConfig().model_dump())} - set(SIZES)):
        for value in ABSURD:
            change(artifact, ["config", *name.split(".")], value)
            with suppress(UserError), bounds():
                loaded = load(artifact)
                if value in (10**12, 1e300):
                    evaluate(loaded, data=digits)
            (artifact / "manifest.json").write_text(text)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((["format_version"], value) for value in [9, -1, 10**30, 2.0, "2", True, None, [2]]),
        *((["mean"], value) for value in [[], None, 0.5, ["0.5"], [[0.5]], [1e300], [float("nan")], [0.1] * 10**6]),
        *((["std"], value) for value in [[], None, [0], [-1], [1e300], [1e-300], [float("inf")], [0.1] * 3, [True]]),
        *((["class_names"], value) for value in [[], None, "0123456789", {}, [0] * 10, ["a"] * 9]),
        *((["metrics"], value) for value in [[], {"val_accuracy": float("nan")}, {"val_accuracy": "1"}, {"a": [1]}]),
        *((["sha256"], value) for value in [{}, [], None, {"images.arrow": 1}, {"images.arrow": "0" * 64}]),
        *((["config"], value) for value in [None, [], "digits", 10**12]),
        (["provenance"], [1]),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_absurd_values(artifact, path, value):
    change(artifact, path, value)
    refused(load, artifact)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["image_shape"], [1, 8]),
        (["image_shape"], [1, 8, 8.0]),
        *((["shapes", "fc3.bias"], value) for value in [[10**12], [10**30], [2**31], [-10], [0], [10.0], "10", None]),
        (["shapes"], {}),
        (["sha256"], {}),
        (["sha256"], {"../../secret": "0" * 64}),
        (["sha256"], {"/dev/zero": "0" * 64}),
        (["format_version"], 2),
        (["class_names"], []),
        (["metrics"], {"test_accuracy": None}),
        (["metrics"], {"nets": 5}),
    ],
    ids=str,
)
def test_absurd_values_of_banks(bank, path, value):
    change(bank, path, value)
    assert "bank=" in refused(load_bank, bank)


@pytest.mark.parametrize("settings", ["[1]", "null", nest(10**5), "1" * 10**5], ids=lambda text: text[:9])
def test_settings_of_a_bank(bank, settings):
    """What `raydistill pretrain` goes on with."""
    (bank / "pretrain.json").write_text(settings)
    refused(lambda folder: pretrain(PretrainConfig(nets=5, chunk=5, epochs=1), folder), bank)


@pytest.mark.parametrize("shape", [[10**12, 8, 8], [1, 10**12, 8], [3, -8, 8], [2, 8, 8], [1, 0, 8]], ids=str)
def test_the_size_that_a_bank_asks_for(bank, tmp_path, shape):
    """With objective=adapt the real images are brought to it."""
    change(bank, ["image_shape"], shape)
    bad = ["objective=adapt", "weights=random_pretrained", f"bank={bank}", "iterations=1", "test_nets=1", "val_nets=1"]
    with bounds():
        result = CliRunner().invoke(app, ["distill", "--out", str(tmp_path / "run"), *(f"--set={b}" for b in bad)])
    assert result.exit_code == 2, result.output
    assert result.output.startswith(f"error: bank={bank}: ")
    assert len(result.output.splitlines()) == 1


def as_type(name, metadata):
    """Images as flat lists that claim to be of an extension type."""
    field = pa.field("image", pa.list_(pa.float32(), 64), metadata={
        "ARROW:extension:name": name, "ARROW:extension:metadata": metadata
    })  # fmt: skip
    return lambda images: pa.table(
        [*images.columns[:3], nested(np.ones((20, 64), np.float32))],
        schema=pa.schema([*list(images.schema)[:3], field]),
    )


def images_of(*shape, dtype=np.float32):
    return lambda images: images.set_column(3, "image", nested(np.ones((20, *shape), dtype)))


def lists(*sizes):
    kind = pa.float32()
    for size in sizes:
        kind = pa.list_(kind, size)
    return kind


def gaps(column):
    def with_gaps(images):
        values = images[column].to_pylist()
        return images.set_column(
            images.column_names.index(column), column, pa.array([*values[:-1], None], images[column].type)
        )

    return with_gaps


def inner_gap(images):
    values = images["image"].to_pylist()
    values[3][0][2][1] = None
    return images.set_column(3, "image", pa.array(values, images["image"].type))


TABLES = {
    "flat": images_of(64),
    "two dimensions": images_of(8, 8),
    "five dimensions": images_of(1, 1, 8, 8),
    "another order": images_of(8, 8, 1),
    "other channels": images_of(3, 8, 8),
    "no pixels": lambda t: t.set_column(3, "image", pa.array([[[]]] * 20, lists(8, 0, 1))),
    "nothing at all": lambda t: t.set_column(3, "image", pa.array([[]] * 20, lists(0))),
    "float64": images_of(1, 8, 8, dtype=np.float64),
    "deep": images_of(*[1] * 27, 1, 8, 8),
    "lists of any size": lambda t: t.set_column(
        3, "image", t["image"].cast(pa.list_(pa.list_(pa.list_(pa.float32()))))
    ),
    "a tensor that is none": as_type("arrow.fixed_shape_tensor", "x"),
    "a tensor without limits": as_type("arrow.fixed_shape_tensor", json.dumps({"shape": [10**12, 10**12]})),
    "a tensor below zero": as_type("arrow.fixed_shape_tensor", json.dumps({"shape": [-1, -64]})),
    "a tensor too large": as_type("arrow.fixed_shape_tensor", json.dumps({"shape": [3, 8, 8]})),
    "a tensor, deep": as_type("arrow.fixed_shape_tensor", json.dumps({"shape": [1, 8, 8], "x": []})[:-3] + nest(10**5)),
    "no image column": lambda t: t.drop_columns(["image"]),
    "two image columns": lambda t: t.append_column("image", t["image"]),
    "one row less": lambda t: t.slice(0, 19),
    "twice": lambda t: pa.concat_tables([t, t]),
    "no rows": lambda t: t.slice(0, 0),
    "steps as text": lambda t: t.set_column(0, "step", t["step"].cast(pa.string())),
    "a step missing": gaps("step"),
    "a soft label missing": gaps("soft_label"),
    "an image missing": gaps("image"),
    "a pixel missing": inner_gap,
    "no numbers": lambda t: t.set_column(3, "image", nested(np.full((20, 1, 8, 8), np.nan, np.float32))),
}


def put(folder, name, data):
    """Replaces a file and its sum."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def table_of(folder, name):
    return pa.ipc.open_file(str(folder / name)).read_all()


@pytest.mark.parametrize("name", TABLES)
def test_images(artifact, name):
    put(artifact, "images.arrow", to_ipc(TABLES[name](table_of(artifact, "images.arrow"))))
    refused(load, artifact)


@pytest.mark.parametrize("column", ["name", "shape", "values"])
def test_initial_weights(artifact, column):
    table = table_of(artifact, "weights.arrow")
    shapes = [None, [2**31 - 1] * 4, [-1], [0], []]
    for value in {"name": [None, "conv1.bias"], "shape": shapes, "values": [None, []]}[column]:  # type: ignore[attr-defined]
        values = table[column].to_pylist()
        values[0] = value
        changed = table.set_column(table.column_names.index(column), column, pa.array(values, table[column].type))
        put(artifact, "weights.arrow", to_ipc(changed))
        refused(load, artifact)


@pytest.mark.parametrize("where", ["images.arrow", "schedule.arrow", "weights.arrow", "bank"])
def test_a_column_name_that_is_not_utf_8(artifact, bank, where):
    folder, name = (bank, "networks-00000.arrow") if where == "bank" else (artifact, where)
    table = table_of(folder, name)
    data = to_ipc(table.append_column("ascii", pa.array([1] * len(table)))).replace(b"ascii", b"\xff\xfe\xfd\x80\x81")
    put(folder, name, data)
    assert f"{name}: not an Arrow file" in refused(load_bank if where == "bank" else load, folder)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_bomb(artifact, codec):
    """A few kilobytes that would be many megabytes."""
    columns = table_of(artifact, "images.arrow")
    row = pa.array(np.zeros(2**24 // 20, np.float32))
    image = pa.FixedSizeListArray.from_arrays(pa.concat_arrays([row] * 20), len(row))
    sink = pa.BufferOutputStream()
    table = columns.set_column(3, "image", image)
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    put(artifact, "images.arrow", sink.getvalue().to_pybytes())
    assert "compressed" in refused(load, artifact)


@pytest.mark.parametrize("command", ["evaluate", "show", "baselines"])
@pytest.mark.parametrize("attack", ["epochs", "twice", "columns", "shape"])
def test_the_commands(artifact, command, attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = table_of(artifact, "images.arrow")
    match attack:
        case "epochs":
            change(artifact, ["config", "epochs"], 10**12)
        case "twice":
            file = artifact / "manifest.json"
            file.write_text(MANIFESTS["twice"](file.read_text()))
        case "columns":
            put(
                artifact,
                "images.arrow",
                to_ipc(table.rename_columns(["abcde", "b", "c", "d"])).replace(b"abcde", b"\xff" * 5),
            )
        case _:
            put(artifact, "images.arrow", to_ipc(images_of(64)(table)))
    with bounds():
        result = CliRunner().invoke(app, [command, "a.distilled"])
    assert result.exit_code == 2, result.output
    assert result.output.startswith("error: a.distilled")
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "grid.png").exists()
