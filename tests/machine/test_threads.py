"""torch's threads while small networks are trained."""

import threading

import pytest
import torch

from glai_native.machine.threads import kernel_threads, one_torch_thread


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_what_is_small_takes_one_thread_and_gives_back_what_was():
    with one_torch_thread(True):
        assert torch.get_num_threads() == 1
        with one_torch_thread(True):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
        assert kernel_threads() == 4
    assert torch.get_num_threads() == kernel_threads() == 4


def test_what_is_large_changes_nothing():
    with one_torch_thread(False):
        assert torch.get_num_threads() == 4


def test_an_error_gives_back_too():
    with pytest.raises(KeyboardInterrupt), one_torch_thread(True):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 4


def test_another_thread_keeps_its_own():
    torch.set_num_threads(3)
    numbers = []

    def other():
        torch.get_num_threads()  # the first time, which would take the process's number
        torch.set_num_threads(2)
        inside.wait()
        numbers.append((torch.get_num_threads(), kernel_threads()))
        left.wait()
        numbers.append((torch.get_num_threads(), kernel_threads()))

    inside, left = threading.Barrier(2), threading.Barrier(2)
    thread = threading.Thread(target=other)
    thread.start()
    with one_torch_thread(True):
        inside.wait()
        assert (torch.get_num_threads(), kernel_threads()) == (1, 3)
    left.wait()
    thread.join()
    assert torch.get_num_threads() == 3
    assert numbers == [(2, 2), (2, 2)]
