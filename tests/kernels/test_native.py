"""Compiling, keeping and doing without."""

import pytest

from raydistill.kernels.native import load_kernels

SOURCE = "int answer(void) { return ANSWER; }\n"


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAYDISTILL_NATIVE", raising=False)
    load_kernels.cache_clear()
    path = tmp_path / "answer.c"
    path.write_text(SOURCE)
    yield path
    load_kernels.cache_clear()


def made(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.so"))


def test_compiles_once(source, tmp_path):
    if (kernels := load_kernels(source, "ANSWER=42")) is None:
        pytest.skip("there is no C compiler")
    assert kernels.answer() == 42
    [library] = made(tmp_path)
    stamp = library.stat().st_mtime_ns
    load_kernels.cache_clear()
    assert load_kernels(source, "ANSWER=42").answer() == 42
    assert [path.stat().st_mtime_ns for path in made(tmp_path)] == [stamp]
    assert load_kernels(source, "ANSWER=7").answer() == 7  # beside the other one
    assert not list((tmp_path / "cache").rglob("tmp*"))


@pytest.mark.parametrize("reason", ["no compiler", "error in the source", "no place", "forbidden"])
def test_none_where_it_cannot_be(source, tmp_path, monkeypatch, caplog, reason):
    if reason == "no compiler":
        monkeypatch.setenv("CC", "no-such-compiler")
    elif reason == "error in the source":
        source.write_text("this is not C")
    elif reason == "no place":
        (tmp_path / "cache").write_text("a file where the folder should be")
    else:
        monkeypatch.setenv("RAYDISTILL_NATIVE", "0")
    assert load_kernels(source, "ANSWER=1") is None
    assert reason == "forbidden" or "answer.c cannot be compiled" in caplog.text
