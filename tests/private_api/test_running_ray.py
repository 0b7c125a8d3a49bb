"""What private names of Ray and Tune are relied upon to do where Ray runs."""

from pathlib import Path

import grpc
import pytest
import ray
from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial

from raydistill.private_api.ray import QUESTION, answers_as_ray, autoscaler_config, longest_socket, started_here
from raydistill.private_api.tune_trials import folder_name, kept_checkpoints, last_error, staging_folder

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def trial(tmp_path):
    storage = StorageContext(storage_path=str(tmp_path), experiment_dir_name="t", trial_dir_name="trial-a")
    trial = Trial("nothing", stub=True, storage=storage)
    trial.init_local_path()
    return trial


def test_the_cluster():
    assert started_here()
    assert not autoscaler_config()
    assert answers_as_ray(ray.get_runtime_context().gcs_address, 15.0)


def test_the_cluster_is_closed_to_those_without_its_token():
    """Also with Ray 2.52, which asks for none by itself."""
    with grpc.insecure_channel(ray.get_runtime_context().gcs_address) as channel:
        for method in (QUESTION, "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(method)(b"", timeout=15.0)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_no_socket_is_longer_than_the_longest():
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    sockets = list((session / "sockets").iterdir())
    assert longest_socket(session.name) in map(str, sockets)
    assert max(map(len, map(str, sockets))) == len(longest_socket(session.name))


def test_the_folders_of_a_trial(trial):
    assert staging_folder(trial).name == "driver_artifacts"
    assert "t" in staging_folder(trial).parts
    assert folder_name(trial) == Path(trial.local_path).name


def test_the_checkpoints_of_a_trial(trial):
    assert kept_checkpoints(trial) == []
    manager = trial.run_metadata.checkpoint_manager
    manager.register_checkpoint(_TrainingResult(tune.Checkpoint("/somewhere/checkpoint_000000"), {}))
    assert kept_checkpoints(trial) == ["/somewhere/checkpoint_000000"]


def test_the_errors_of_a_trial_and_how_often_it_may_fail(trial):
    assert last_error(trial) == ""
    for words, most, again in (("one", 0, False), ("two", -1, True)):
        trial.max_failures = most
        trial.handle_error(RuntimeError(words))
        assert words in last_error(trial)
        assert trial.should_recover() is again
    assert "one" not in last_error(trial)
