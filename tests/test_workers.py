import os

import pytest

from ecgtf.workers import available_cpus, run_jobs


def test_one_worker_is_this_process_and_keeps_the_order():
    assert list(run_jobs(abs, [-3, 2, -1], workers=1)) == [3, 2, 1]
    assert list(run_jobs(lambda _: os.getpid(), [0, 0], workers=1)) == [os.getpid()] * 2
    assert list(run_jobs(abs, [], workers=4)) == []


def test_several_workers_do_every_job_once_and_pass_errors_on():
    assert sorted(run_jobs(abs, range(-20, 0), workers=2)) == list(range(1, 21))
    with pytest.raises(ValueError, match="invalid literal"):
        list(run_jobs(int, ["1", "x"], workers=2))


def test_a_worker_that_dies_is_an_error_and_not_a_wait_for_ever():
    with pytest.raises(RuntimeError, match="a worker process died"):
        list(run_jobs(os._exit, [1, 1], workers=2))


def test_available_cpus():
    assert 1 <= available_cpus() <= os.cpu_count()
