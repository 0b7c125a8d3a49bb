"""What the tests of checks share."""

import pytest

from raydistill.commands.doctor.examine import HERE, Check, one_after_the_other
from raydistill.commands.doctor.finding import Finding, Options


@pytest.fixture
def found_alone():
    """Runs one check as the command does, in a process of its own: its one finding."""

    def run(name: str, module: str, limit: float = 60.0) -> Finding:
        [finding] = one_after_the_other([Check(name, HERE + module, limit, "slow")], Options(None, "runs"))
        return finding

    return run
