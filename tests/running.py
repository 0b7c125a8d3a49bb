"""Commands in processes of their own, and data whose names are odd."""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = [sys.executable, "-m", "raydistill.cli"]
QUICK = ["--set", "iterations=6", "--set", "eval_every=2", "--set", "batch_size=32", "--set", "device=cpu"]
QUICK += ["--set", "choice.steps=3"]

FORKS = multiprocessing.get_context("forkserver") if os.name == "posix" else None
PRELOADED = [
    *("raydistill.runs.distillation", "raydistill.runs.pretraining", "raydistill.evaluation.comparison"),
    *("raydistill.report.tensorboard", "matplotlib.figure", "matplotlib.backends.backend_agg"),
    "torch.fx.experimental.symbolic_shapes",
]


def run(*arguments, cwd, code=0, before=(), timeout=300, **environment):
    """Runs a command, `before` it what it is begun by; returns what it printed on standard output, and as errors.

    A variable that is None is not there. A command that is begun as usual is forked from a process that has imported
    torch already, which takes seconds.
    """
    env = {name: value for name, value in (os.environ | environment).items() if value is not None}
    words = list(map(str, arguments))
    if before or environment or FORKS is None:
        done = subprocess.run([*before, *COMMAND, *words], cwd=cwd, env=env, capture_output=True, timeout=timeout)
        ended, outputs = done.returncode, (done.stdout, done.stderr)
    else:
        ended, outputs = _forked(words, cwd, env, timeout)
    out, err = (stream.decode(errors="replace") for stream in outputs)
    assert ended == code, out + err
    assert "Traceback" not in out + err, out + err
    return out, err


def _forked(words, cwd, env, timeout):
    """The exit code and the outputs of a command in a forked process."""
    FORKS.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("out", "err")]
        process = FORKS.Process(target=_command, args=(words, str(cwd), env, files))
        process.start()
        process.join(timeout)
        assert process.exitcode is not None, f"{words} takes more than {timeout} s"
        return process.exitcode, [file.read_bytes() for file in files]


def _command(words, cwd, env, files):
    """Be a command that was just begun."""
    from raydistill.cli import main

    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["raydistill", *words]
    main()


@contextmanager
def beginning(**options):
    """Within it a function begins lines as processes of their own (`options` as of Popen), which end with it."""
    with ExitStack() as begun:

        def begin(*line):
            process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, **options)
            begun.callback(process.communicate)
            begun.callback(process.kill)
            return process

        yield begin


def last_json(output):
    return json.loads(output.strip().splitlines()[-1])


def images_by_class(folder, names, count=20):
    """A folder of small images in classes of these names, which may be bytes."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(names):
        place = os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name)))
        os.makedirs(place)
        for i in range(count):
            pixels = generator.random((12, 12)) * 60 + 30 * number
            Image.fromarray(pixels.astype(np.uint8)).save(os.path.join(place, f"{i}.png"))
