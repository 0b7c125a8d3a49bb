"""Which device a process computes on, and how much of its memory it may take."""

import os
import subprocess
import sys

import pytest
import torch
from pretended_gpu import GIB, NO_DRIVER, in_a_process

from raydistill.runs.run import Run
from raydistill.store.artifact import save
from raydistill.store.checkpoint import save_checkpoint
from raydistill.system.device import pick_device
from raydistill.system.errors import UserError
from raydistill.system.gpu_memory import CUDA_ITSELF, enough_gpu_memory

PRELUDE = """
from pretended_gpu import GIB, pretend
from raydistill.store.artifact import save
from raydistill.system.device import pick_device
from raydistill.system.errors import UserError
from raydistill.system.gpu_memory import use_gpu_share
def line(name, gpus=None):
    try:
        return pick_device(name, gpus)
    except UserError as error:
        return error
"""


CASES = [
    *[("auto", None), ("cuda", None), ("cuda:1", None), ("cpu", None)],
    *[("auto", 0.25), ("cuda", 1), ("auto", 0), ("cuda", 0), ("cuda:2", None)],
]


def run(script, **environment):
    return in_a_process(PRELUDE + script, **environment).splitlines()


@pytest.mark.slow
def test_a_gpu_has_its_index_and_no_gpu_granted_is_the_cpu():
    """However many this process sees: Ray shows all of them to one that it granted none."""
    lines = run("pretend(count=2)\nfor name, gpus in CASES: print(line(name, gpus))".replace("CASES", repr(CASES)))
    assert lines[:7] == ["cuda:0", "cuda:0", "cuda:1", "cpu", "cuda:0", "cuda:0", "cpu"]
    assert lines[7] == "device=cuda: resources.gpu=0 grants no GPU; set it to 1, a share as 0.25, or auto"
    assert lines[8] == "device=cuda:2: is not here (CUDA error: invalid device ordinal); use auto or cpu"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "reason"),
    [("count=0", NO_DRIVER), ("kernels=False", "CUDA error: no kernel image is available for execution on the device")],
)
def test_a_granted_gpu_that_torch_cannot_use_is_said(machine, reason):
    [auto, named, none] = run(
        f"pretend({machine})\nprint(line('auto', 0.25))\nprint(line('cuda', 1.0))\nprint(line('auto', 0))",
        CUDA_VISIBLE_DEVICES="3",
    )
    assert auto.startswith(
        f"device=auto: Ray granted 0.25 GPU on {os.uname().nodename} (CUDA_VISIBLE_DEVICES=3), which"
    )
    assert (
        f"torch {torch.__version__} cannot use; repair its driver or torch there, or set resources.gpu=0 ({reason})"
        in auto
    )
    assert "device=cuda: Ray granted 1 GPU" in named
    assert none == "cpu"


def test_this_machine():
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    assert pick_device("auto") == pick_device("cpu", 1) == torch.device("cpu")
    with pytest.raises(UserError, match=r"device=auto: Ray granted 0\.5 GPU on .* cannot use"):
        pick_device("auto", 0.5)


@pytest.mark.slow
def test_a_share_is_a_cap_on_memory():
    """One that shares the GPU with nobody is not limited."""
    [caps] = run(
        "caps = pretend()\nfor share in (0.25, 1.0, 2.0, 0.0): use_gpu_share(share, pick_device('auto', share or None))"
        "\nuse_gpu_share(0.25, pick_device('cpu'))\nprint(caps)"
    )
    assert caps == str([(0.25 - CUDA_ITSELF / (80 * GIB), 0)])


@pytest.mark.slow
def test_a_share_that_no_process_can_live_on_is_said():
    lines = run(
        "caps = pretend(total=24 * GIB)\n"
        "for share in (0.04, 0.042):\n"
        "    try: use_gpu_share(share, pick_device('auto', share))\n"
        "    except UserError as error: print(error)\n"
        "print(len(caps))"
    )
    assert lines == [
        "resources.gpu=0.04: is 0.96 GiB of a GPU that has 24.0, and a process needs 1 to begin with; at least 0.042",
        "1",
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("CUDA error: out of memory\nmore"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_too_little_memory_is_one_line(error):
    with (
        pytest.raises(UserError, match=r"resources\.gpu=0\.25: this share .* \(CUDA [^\n]*\)$"),
        enough_gpu_memory(0.25),
    ):
        raise error
    with pytest.raises(UserError, match=r"^one GPU has too little memory"), enough_gpu_memory(1.0):
        raise error


def test_other_errors_stay_what_they_are():
    for error in (RuntimeError("shapes differ"), UserError("steps=0"), ValueError("out of memory")):
        with pytest.raises(type(error)) as found, enough_gpu_memory(0.25):
            raise error
        assert found.value is error


FLAGS = """
import sys, torch
from dataclasses import replace
from pretended_gpu import let_tensors_stay, pretend
from raydistill import PretrainConfig, compare, evaluate, load, pretrain
from raydistill.data import load_dataset
from raydistill.runs.follower import Follower
from raydistill.runs.run import Run
from raydistill.sweep.reporting.final_test import final_test
from raydistill.sweep.searching.trial import DistillTrial
from raydistill.sweep.searching.trial_inputs import TrialInputs
folder = sys.argv[1]
made = load(folder + "/best.distilled")
data = load_dataset(made.config)
class Folder:
    def as_directory(self):
        from contextlib import nullcontext
        return nullcontext(folder)
def inputs(config):
    return TrialInputs(config.model_dump(), data.to_numpy(), None, threads=1, gpus=1)
def trial(config):
    class Trial(DistillTrial):
        def setup(self, searched):
            super().setup(searched, inputs(config))
    Trial({})
BEGIN = {
    "run": lambda config: Run(config, data),
    "follower": lambda config: Follower(config, data.to_numpy(), None, 1, 1),
    "evaluate": lambda config: evaluate(replace(made, config=config), device="cuda", data=data),
    "compare": lambda config: compare(replace(made, config=config), draws=1, device="cuda", data=data),
    "compare settings": lambda config: compare(config, draws=1, data=data),
    "pretrain": lambda config: pretrain(
        PretrainConfig(device="cuda", precision=config.precision, deterministic=config.deterministic, nets=1, epochs=1),
        f"{folder}/bank-{config.precision}", data=data,
    ),
    "trial": trial,
    "final test": lambda config: final_test({}, Folder(), inputs(config)),
}
pretend()
let_tensors_stay()
products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
for name, begin in BEGIN.items():
    for precision, rounded in (("tf32", True), ("float32", False)):
        products.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = not rounded
        cudnn.deterministic = not rounded
        update = {"precision": precision, "device": "cuda", "deterministic": rounded}
        begin(made.config.model_copy(update=update))
        flags = products.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, not cudnn.benchmark
        print(name, precision, all(flag is rounded for flag in flags))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "turns"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")]
)
def test_threads_wait_for_each_other_briefly(own, turns):
    """By their default they wait so long that another busy process makes an iteration seven times longer."""
    script = "import raydistill.system.device"
    unset = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    env = unset | {"OMP_DISPLAY_ENV": "VERBOSE"} | own
    shown = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stderr
    if "GOMP_SPINCOUNT" not in shown:
        pytest.skip("this torch has another OpenMP than libgomp")
    assert f"GOMP_SPINCOUNT = '{turns}'" in shown


@pytest.mark.slow
def test_each_process_sets_its_precision(small, digits, tmp_path):
    """A run, a follower, `evaluate`, `compare`, `pretrain`, and a sweep's trial and final test, all to their ends."""
    run = Run(small, digits)
    save(run.artifact(), tmp_path / "best.distilled")
    save_checkpoint(run.state_dict(), tmp_path)
    lines = in_a_process(FLAGS, str(tmp_path)).splitlines()
    names = ["run", "follower", "evaluate", "compare", "compare settings", "pretrain", "trial", "final test"]
    assert lines == [f"{name} {precision} True" for name in names for precision in ("tf32", "float32")]
