"""Commands in processes of their own, and data whose names are odd."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import numpy as np
from PIL import Image

COMMAND = [sys.executable, "-m", "raydistill.cli"]
QUICK = ["--set", "iterations=6", "--set", "eval_every=2", "--set", "batch_size=32", "--set", "device=cpu"]
QUICK += ["--set", "choice.steps=3"]


def run(*arguments, cwd, code=0, before=(), timeout=300, **environment):
    """Runs a command, `before` it what it is begun by; returns what it printed on standard output, and as errors.

    A variable that is None is not there.
    """
    env = {name: value for name, value in (os.environ | environment).items() if value is not None}
    done = subprocess.run(
        [*before, *COMMAND, *map(str, arguments)], cwd=cwd, env=env, capture_output=True, timeout=timeout
    )
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    assert done.returncode == code, out + err
    assert "Traceback" not in out + err, out + err
    return out, err


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
