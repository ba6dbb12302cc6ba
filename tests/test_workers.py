import functools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ecgtf import workers
from ecgtf.workers import available_cpus, run_in_turn, run_jobs


def process(_):
    return os.getpid()


def leave_a_mark_and_sleep(path):
    path.write_text(str(os.getpid()))
    time.sleep(60)


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


def test_jobs_in_turn_stay_in_order_and_a_process_does_so_many():
    assert list(run_in_turn(abs, range(-7, 0), at_most=3)) == [7, 6, 5, 4, 3, 2, 1]
    processes = list(run_in_turn(process, range(7), at_most=3))
    assert len(set(processes)) == 3
    assert processes == sorted(processes, key=processes.index)
    assert [processes.count(each) for each in dict.fromkeys(processes)] == [3, 3, 1]
    assert os.getpid() not in processes
    assert list(run_in_turn(process, range(3), at_most=3)) == [os.getpid()] * 3


def test_in_turn_an_error_or_a_death_ends_the_jobs():
    done = run_in_turn(int, ["1", "x", "3"], at_most=2)
    assert next(done) == 1
    with pytest.raises(ValueError, match="invalid literal") as caught:
        next(done)
    assert "_work_through" in caught.value.__notes__[0]  # where it happened
    with pytest.raises(RuntimeError, match="a worker process died"):
        list(run_in_turn(os._exit, [1, 1], at_most=1))


def leave_a_thread_behind(number):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return number


@pytest.mark.parametrize("shell", ["", ">&-"])
def test_in_turn_a_process_ends_though_a_thread_of_a_job_does_not(shell):
    work = "from ecgtf.workers import run_in_turn; from test_workers import leave_a_thread_behind as job; "
    work += "import os; assert list(run_in_turn(job, range(3), at_most=1)) == [0, 1, 2]; os._exit(7)"
    command = f"{sys.executable} -c '{work}' {shell}"
    # without an end of its own, each process would wait for an hour
    assert subprocess.run(command, shell=True, cwd=Path(__file__).parent, timeout=600).returncode == 7


class Unsendable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail(_):
    raise Unsendable("this", "that")


def wait_for_the_end(path):
    """As a training does: SIGTERM ends it in order."""

    def save(*_):
        path.with_name("saved").touch()
        raise KeyboardInterrupt("stopped in order")

    signal.signal(signal.SIGTERM, save)
    leave_a_mark_and_sleep(path)


def find_the_end(_):
    raise EOFError("the archive ends early")


def test_an_end_that_a_job_met_is_not_its_process_end():
    with pytest.raises(EOFError, match="the archive ends early"):
        list(run_in_turn(find_the_end, [0, 1], at_most=1))


def test_errors_that_cannot_be_sent_are_told():
    with pytest.raises(RuntimeError, match="Unsendable: this and that"):
        list(run_in_turn(fail, [0, 1], at_most=1))


def test_a_process_that_dies_before_it_takes_its_work_is_an_error():
    work = bytes(2_000_000)  # more than a pipe holds
    with pytest.raises(RuntimeError, match="a worker process died"):
        list(run_in_turn(len, [work, work, work], at_most=2, first=functools.partial(os._exit, 1)))


def test_no_process_takes_no_job():
    with pytest.raises(ValueError, match="at least 1 job for a process, received 0"):
        list(run_in_turn(abs, [1, 2], at_most=0))


def test_a_job_in_turn_that_is_asked_to_end_says_so(tmp_path):
    mark = tmp_path / "mark"

    def ask_once_begun():
        while not mark.exists() or not mark.read_text():
            time.sleep(0.01)
        os.kill(int(mark.read_text()), signal.SIGTERM)

    threading.Thread(target=ask_once_begun, daemon=True).start()
    with pytest.raises(KeyboardInterrupt, match="stopped in order"):
        list(run_in_turn(wait_for_the_end, [mark, tmp_path / "never"], at_most=1))
    assert (tmp_path / "saved").exists()


def test_ctrl_c_ends_the_job_in_turn(tmp_path):
    mark = tmp_path / "mark"

    def press_once_begun():
        while not mark.exists() or not mark.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press_once_begun, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        next(run_in_turn(leave_a_mark_and_sleep, [mark, tmp_path / "never"], at_most=1, first=time.time))
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert not (tmp_path / "never").exists()


def test_an_interrupt_waits_until_the_workers_have_begun(monkeypatch):
    """Also one that the system hands to another thread than the one that starts them."""
    begun = []

    def press():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    class Pool(ProcessPoolExecutor):
        def submit(self, function, job):
            if not begun:
                thread = threading.Thread(target=press)
                thread.start()
                thread.join()
            begun.append(job)
            return super().submit(function, job)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt):
        next(run_jobs(time.sleep, [0, 0, 0], workers=2))
    assert begun == [0, 0, 0]


def test_available_cpus():
    assert 1 <= available_cpus() <= os.cpu_count()
