"""What is deleted at the end of a sweep, and what is not."""

from types import SimpleNamespace

import pytest

from raydistill.sweep.surviving.cleanup import tidy
from raydistill.system.storage import join, open_place, write_json


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_only_what_is_old_goes(request, tmp_path, kind):
    place = str(tmp_path / "t") if kind == "folder" else join(request.getfixturevalue("s3"), "t")
    filesystem, inside = open_place(place)
    files = [f"trial-{t}/checkpoint_{n:06d}/checkpoint.pt" for t in "ab" for n in (1, 2)]
    files += [f"front/trial-{t}.distilled/manifest.json" for t in "ab"]
    files += [f"{part}-2027-01-0{day}_10-00-00.{end}" for day in (1, 2, 3) for part, end in STATES]
    files += ["tuner.pkl", "sweep.json", "index.parquet", "optuna.log"]
    for file in files:
        write_json(join(place, file), {})

    def checkpoint(trial, number):
        return SimpleNamespace(path=f"{inside}/trial-{trial}/checkpoint_{number:06d}")

    def trial(name, status):
        both = [SimpleNamespace(checkpoint=checkpoint(name, number)) for number in (1, 2)]
        manager = SimpleNamespace(checkpoint_manager=SimpleNamespace(best_checkpoint_results=both))
        return SimpleNamespace(status=status, checkpoint=checkpoint(name, 2), run_metadata=manager)

    trials = [trial("a", "TERMINATED"), trial("b", "RUNNING"), SimpleNamespace(status="TERMINATED", checkpoint=None)]
    for _ in range(2):  # also when it is gone already
        tidy(place, trials, [join(place, "front", "trial-b.distilled")])
    gone = {"trial-a/checkpoint_000001/checkpoint.pt", "front/trial-a.distilled/manifest.json"}
    gone |= {f"{part}-2027-01-0{day}_10-00-00.{end}" for day in (1, 2) for part, end in STATES}
    left = {file for file in files if filesystem.get_file_info(f"{inside}/{file}").type.name == "File"}
    assert left == set(files) - gone


STATES = [("experiment_state", "json"), ("search_gen_state", "json"), ("searcher-state", "pkl")]
