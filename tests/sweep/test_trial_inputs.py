"""What all trials share, and how it travels to their processes."""

import pickle

import torch

from raydistill.sweep.searching.trial_inputs import TrialInputs


def test_a_process_reads_the_arrays_where_they_lie(digits):
    """Ray keeps the buffers that pickle hands out in shared memory, and gives them back as they are, read-only."""
    inputs = TrialInputs(base={}, data=digits.to_numpy(), bank=None, threads=1.0)
    buffers = []
    sent = pickle.dumps(inputs, protocol=5, buffer_callback=buffers.append)
    images = digits.to_numpy()["train_images"]
    assert len(sent) < images.nbytes / 20
    shared = [memoryview(bytes(buffer.raw())).toreadonly() for buffer in buffers]
    received = pickle.loads(sent, buffers=shared)
    data = received.load_data()
    assert torch.equal(data.train.images[:], digits.train.images[:])
    assert data.fingerprint == digits.fingerprint
    assert not received.data["train_images"].flags.writeable
    assert received.load_bank() is None
