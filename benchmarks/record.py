"""Runs a raydistill command and keeps what came out: command, device, seconds and its JSON, in benchmarks/results/.

    uv run python benchmarks/record.py NAME -- distill --set dataset=mnist ...

writes benchmarks/results/DATE-NAME.md. Nobody types a number into those files.
"""

import datetime
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"


def device_name() -> str:
    """The accelerator, or the processor and the cores this process may use."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


def processor() -> str:
    """The processor and the cores this process may use."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} core{'s' * (cores > 1)}"


def commit() -> str:
    """The commit that is measured."""
    if shutil.which("git") is None:
        return "unknown"
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def results_folder() -> str:
    """Where tables go: to OUT where that variable names a folder, as on a borrowed machine, else to `results`."""
    return os.environ.get("OUT") or str(RESULTS)


def keep_table(name: str, title: str, script: str, lines: list[str], device: torch.device, out: str) -> None:
    """Writes a table as DATE-NAME-DEVICE.md into the folder `out`, with the command that made it."""
    where = device_name() if device.type == "cuda" else processor()
    today = datetime.date.today().isoformat()
    device_words = re.sub(r"[^a-z0-9.]+", "-", where.lower()).strip("-")
    path = Path(out) / f"{today}-{name}-{device_words}.md"
    head = f"# {title}\n\n    {shlex.join(['python', f'benchmarks/{script}', *sys.argv[1:]])}\n"
    versions = f"torch {torch.__version__}, numpy {np.__version__}, commit {commit()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}\n{today}, {where}, {versions}.\n\n" + "\n".join(lines) + "\n")
    print(f"written to {path}")


def main() -> None:
    """See the module's docstring."""
    name, dashes, *arguments = sys.argv[1:] or ["", ""]
    if dashes != "--" or not arguments:
        sys.exit(__doc__)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "raydistill.cli", *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.perf_counter() - start
    print(done.stdout)
    if done.returncode:
        sys.exit(done.returncode)
    *log, last = done.stdout.replace(f"{Path.cwd()}/", "").rstrip().splitlines()  # no path of this machine
    today = datetime.date.today().isoformat()
    text = f"""# {name}

    raydistill {shlex.join(arguments)}

{today}, {device_name()}, torch {torch.__version__}, commit {commit()}; {seconds:.0f} s from start to end.

Result (accuracies are fractions):

```json
{json.dumps(json.loads(last), indent=2)}
```

Log:

```
{chr(10).join(log)}
```
"""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{today}-{name}.md").write_text(text)


if __name__ == "__main__":
    main()
