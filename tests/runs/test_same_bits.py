"""Short runs whose bits are known: what they learn stays the same when the code changes.

The bits depend on torch's version, and on the instructions that its libraries choose. The runs are therefore held to
one thread, AVX2 and torch's own operations, in a process of their own: these choices are made when torch is imported.
"""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

RUN = """
import hashlib, json, sys
from dataclasses import replace
import torch
from raydistill import DistillConfig, distill
from raydistill.data import Split, load_dataset

torch.set_num_threads(1)
config = DistillConfig(**json.loads(sys.argv[1]))
data = load_dataset(config)
few = {name: getattr(data, name) for name in ("val", "test")}
data = replace(data, **{name: Split(part.images[:200], part.labels[:200]) for name, part in few.items()})
artifact = distill(config, data=data)
learned = [getattr(artifact.distilled, name) for name in ("images", "labels", "raw_rates")]
print(*[hashlib.sha256(part.numpy().tobytes()).hexdigest()[:16] for part in learned], artifact.metrics["test_accuracy"])
"""
HELD = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "RAYDISTILL_NATIVE": "0",
}
SHORT = {
    "device": "cpu",
    "iterations": 20,
    "eval_every": 10,
    "batch_size": 64,
    "steps": 2,
    "val_nets": 2,
    "test_nets": 2,
    "recipe": "schedule",
    "choice": {"steps": 3},
}
RUNS = {
    "digits, fixed weights": SHORT,
    "digits, random weights": SHORT | {"weights": "random", "images_per_class": 2, "seed": 3},
    "mnist, fixed weights": SHORT | {"dataset": "mnist", "steps": 1, "iterations": 5, "eval_every": 5},
}
# On these processors the libraries add in other orders, even held so. What decides is not known (vendor or caches), so
# the bits of either are right on both.
INTEL, AMD = "an Intel Xeon", "an AMD EPYC"
KNOWN = {  # by torch's version and processor: images, labels, raw rates, and the accuracy of the test
    "2.15.0": {
        "digits, fixed weights": {
            INTEL: "bab5ed96e627cb17 7f786fa64f69d8cb 09ee1daaac0d7fc1 0.06499999761581421",
            AMD: "ea3fb684f6c97e5f 7f786fa64f69d8cb f38d649dc8a47883 0.06499999761581421",
        },
        "digits, random weights": {
            INTEL: "2f7db057d15cc52d 3c673c869e45d489 459c078c57c22272 0.22499999403953552",
            AMD: "e2e696ef14dde055 3c673c869e45d489 459c078c57c22272 0.22499999403953552",
        },
        "mnist, fixed weights": {
            INTEL: "f6e402c9e4069ecf 77c0baf32850e55c 15dffab28d4079bf 0.11999999731779099",
            AMD: "31b526d004a3e9a3 77c0baf32850e55c 15dffab28d4079bf 0.11999999731779099",
        },
    }
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_the_bits_are_those_of_before(name, request):
    version = torch.__version__.partition("+")[0]
    if version not in KNOWN:
        pytest.skip(f"the bits are known for torch {', '.join(KNOWN)}, not {version}")
    if platform.machine() != "x86_64" or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("the bits are known for processors with AVX2")
    held = dict(HELD)
    if "dataset" in RUNS[name]:
        held["RAYDISTILL_DATA"] = str(request.getfixturevalue("real_data"))
    line = [sys.executable, "-c", RUN, json.dumps(RUNS[name])]
    found = subprocess.run(line, env=os.environ | held, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert found.strip() in KNOWN[version][name].values()
