"""BLAS has one thread while any fit runs, and its own number after the last."""

from threading import Event, Thread

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from mgnet.estimators.blas_threads import one_blas_thread


def threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_fits_at_once_share_the_limit(first_ends_first):
    within, leave, told = [Event(), Event()], [Event(), Event()], []

    def fit(number):
        with one_blas_thread():
            within[number].set()
            leave[number].wait(60.0)

    with threadpool_limits(2, user_api="blas"):
        several = threads()
        fits = [Thread(target=fit, args=(number,)) for number in range(2)]
        for number, thread in enumerate(fits):
            thread.start()
            assert within[number].wait(60.0)
        for number in (0, 1) if first_ends_first else (1, 0):
            told.append(threads())
            leave[number].set()
            fits[number].join()
        assert told == [{1}, {1}] and threads() == several


def test_errors_give_the_threads_back():
    with threadpool_limits(2, user_api="blas"):
        several = threads()
        with pytest.raises(KeyboardInterrupt), one_blas_thread():
            raise KeyboardInterrupt
        assert threads() == several
