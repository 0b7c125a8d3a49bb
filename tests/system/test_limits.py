"""Limits of containers and batch systems, in the files in which both versions of cgroups keep them."""

import math

import pytest

from raydistill.system.limits import core_limit, memory


@pytest.fixture
def groups(tmp_path):
    """Writes files below a root for groups, and what this process is in; returns both."""

    def make(own, **files):
        for place, text in files.items():
            file = tmp_path / "root" / place.replace("__", "/").replace("-", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (tmp_path / "own").write_text(own)
        return tmp_path / "root", tmp_path / "own"

    return make


def test_version_2(groups):
    files = {"cpu.max": "max 100000\n", "slice/cpu.max": "150000 100000\n", "slice/job/cpu.max": "max 100000\n"}
    assert core_limit(*groups("0::/slice/job\n", **files)) == 1.5


def test_version_1_of_a_container_that_sees_its_own_group_as_the_root(groups):
    files = {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert core_limit(*groups("4:cpuset:/x\n2:cpu,cpuacct:/docker/abc\n", **files)) == 2


def test_no_limit(groups, tmp_path):
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert core_limit(*groups("2:cpu:/\n0::/\n", **files)) == math.inf
    assert core_limit(tmp_path, tmp_path / "no such file") == math.inf


def test_memory_of_the_machine_is_that_of_the_group(groups, tmp_path):
    free, total = memory(tmp_path, tmp_path / "no such file")
    assert 0 < free < total
    files = {"memory.max": "1000000\n", "memory.current": "900000\n", "memory.stat": "anon 1\ninactive_file 300000\n"}
    assert memory(*groups("0::/\n", **files)) == (400_000, 1_000_000)
    files = {"memory/memory.limit_in_bytes": "2000000\n", "memory/memory.usage_in_bytes": "500000\n"}
    assert memory(*groups("4:memory:/\n", **files)) == (1_500_000, 2_000_000)
