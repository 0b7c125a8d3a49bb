"""What is said of the folder of data sets and of the storage."""

from raydistill.commands.doctor import places
from raydistill.commands.doctor.finding import Options
from raydistill.data.sources import FILES, SOURCES

HERE_AND_NOW = Options(None, "runs")


def one(findings):
    [finding] = findings
    return finding


def test_the_folder_of_data_sets(tmp_path, monkeypatch):
    monkeypatch.delenv("RAYDISTILL_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = one(places.look_at_data(HERE_AND_NOW))
    assert (usual.state, "downloaded when first used" in usual.todo) == ("note", True)
    named = one(places.look_at_data(Options(str(tmp_path / "none"), "runs")))
    assert (named.state, "--data-dir" in named.todo) == ("fails", True)
    (tmp_path / "file").touch()
    assert not one(places.look_at_data(Options(str(tmp_path / "file"), "runs"))).ok
    for name in ("MNIST/raw/train-images-idx3-ubyte.gz", "cifar-10-batches-py/batches.meta", "usps.bz2"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    monkeypatch.setenv("RAYDISTILL_DATA", str(tmp_path / "data"))
    finding = one(places.look_at_data(HERE_AND_NOW))
    assert (finding.state, finding.found) == ("ok", f"{tmp_path / 'data'}: mnist, usps, cifar10")


def test_every_named_data_set_is_looked_for():
    assert {*FILES, "digits"} == set(SOURCES)


def test_the_storage(tmp_path, s3):
    local = one(places.look_at_storage(Options(None, str(tmp_path / "new"))))
    assert "write, rename, read, delete" in local.found
    assert list(tmp_path.iterdir()) == []
    assert one(places.look_at_storage(Options(None, s3))).found == f"{s3}: write, read, delete"
