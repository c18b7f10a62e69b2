"""Law: only tensors of a device make the host wait, and a thread alone captures."""

import threading

import torch

from mgnet.depth.batched.devices import captured, capturing, waits


def test_the_host_waits_for_devices_alone():
    assert not waits(torch.ones(2))
    assert waits(torch.ones(2, device="meta"))  # any other than the host's


def test_a_capture_is_of_its_thread_and_ends():
    x, elsewhere = torch.ones(2), []
    assert not captured(x)
    with capturing():
        with capturing():
            assert captured(x)
        assert captured(x)
        thread = threading.Thread(target=lambda: elsewhere.append(captured(x)))
        thread.start()
        thread.join()
    assert elsewhere == [False]
    assert not captured(x)
