"""Errors as Ray, Arrow and torch word them."""

import pytest

from raydistill.sweep.error_reasons import explain, is_of_storage

TRACE = 'Traceback (most recent call last):\n  File "trainable.py", line 486, in save\n'
FULL = TRACE + "OSError: [Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device\n"
AWAY = (
    TRACE + "OSError: When completing multiple part upload for key 't/checkpoint.pt' in bucket 'b': AWS Error "
    "NETWORK_CONNECTION during CompleteMultipartUpload operation: curlCode: 7, Couldn't connect to server\n"
)
MEMORY = "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.\nMemory on the node\n"
GPU_MEMORY = TRACE + (
    "ray.exceptions.RayTaskError(OutOfMemoryError): ray::DistillTrial.train()\n"
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.50 GiB\n"
)
LOST = "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.\n\tpid: 7\n"
USER = TRACE + (
    "ray.exceptions.RayTaskError(UserError): ray::DistillTrial.train()\n"
    "raydistill.system.errors.UserError: resources.gpu=0.25: has too little memory for it: CUDA out of memory.\n"
)


@pytest.mark.parametrize(
    ("error", "words", "storage"),
    [
        (FULL, "the storage is full", True),
        (AWAY, "the storage cannot be reached or refuses: OSError: When completing", True),
        (TRACE + "PermissionError: [Errno 13] Permission denied: '/shared'", "cannot be read or written", True),
        (MEMORY, "its node ran out of memory", False),
        (GPU_MEMORY, "its GPU has too little memory left for it; a larger share (resources.gpu)", False),
        (TRACE + "RuntimeError: CUDA error: out of memory", "its GPU has too little memory", False),
        (LOST, "its process was lost", False),
        (USER, "resources.gpu=0.25: has too little memory for it: CUDA out of memory.", False),
        (TRACE + "RuntimeError: sizes differ", "RuntimeError: sizes differ", False),
        ("", "no reason is known", False),
    ],
)
def test_errors_in_one_line(error, words, storage):
    line = explain(error)
    assert words in line
    assert "\n" not in line
    assert is_of_storage(error) is storage


def test_long_lines_are_cut():
    assert len(explain("ValueError: " + "x" * 1000)) == 300
