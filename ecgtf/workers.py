"""Jobs in other processes that start clean and never outlive their parent: over several at once, or in turn in one after the other."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import TypeVar

from ecgtf.signals import watching

Job = TypeVar("Job")
Result = TypeVar("Result")

_DIED = "a worker process died: perhaps memory ran out"
_OR_NO_GUARD = ", or the calling script lacks `if __name__ == '__main__':` around its work"


class WorkerDied(RuntimeError):
    """A process ended without a word; what was finished before is kept."""


def available_cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None = None) -> Iterator[Result]:
    """`function` of each job, as they get done; in this process if one worker or one job is all there is.

    Processes are spawned, not forked: a fork of a process with TensorFlow's threads may hang. If the caller stops early, jobs
    that have not begun are dropped; close the iterator to wait for those that have.

    Args:
        function: a module's function; it and the jobs are pickled.
        jobs: its arguments.
        workers: how many processes; as many as processors if None.

    Raises:
        WorkerDied: if a worker process does.
    """
    workers = min(workers or available_cpus(), len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with _interrupts_held_back():  # also while it creates its locks, which would be left over
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_initialise_worker)
    try:
        with _interrupts_held_back():
            futures = [pool.submit(function, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise WorkerDied(f"{_DIED} (use fewer workers){_OR_NO_GUARD}") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_in_turn(
    function: Callable[[Job], Result], jobs: Sequence[Job], at_most: int, first: Callable[[], object] | None = None
) -> Iterator[Result]:
    """`function` of each job in order, in a process that makes way for a fresh one after `at_most` of them.

    What jobs leave in memory goes with their process. So few jobs are done in this one. If the caller stops early, or is stopped,
    the job that has begun is asked to end (SIGTERM) and waited for. (An executor's `max_tasks_per_child` may wait for ever when a
    process ends, CPython issue 115634.)

    Args:
        function: as of `run_jobs`; what it and the jobs share is sent to a process once.
        jobs: its arguments.
        at_most: Jobs of a process.
        first: What a fresh process calls before it imports what the jobs need.

    Raises:
        ValueError: if `at_most` is not positive.
        WorkerDied: if a process does.
    """
    if at_most < 1:
        raise ValueError(f"expected at least 1 job for a process, received {at_most}")
    if len(jobs) <= at_most:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context("spawn")
    for start in range(0, len(jobs), at_most):
        some = jobs[start : start + at_most]
        ours, theirs = context.Pipe()
        process = context.Process(target=_work_through, args=(first, theirs))
        with _interrupts_held_back():
            process.start()
        theirs.close()  # the process has its own: where it dies, there is nobody to send to or receive from
        try:
            with _noticing_a_death():
                ours.send((function, some))
            for _ in some:
                with _noticing_a_death():
                    result, error = ours.recv()
                if error is not None:
                    raise error
                yield result
        except BaseException:
            process.terminate()
            raise
        finally:
            process.join()
            ours.close()


@contextmanager
def _noticing_a_death() -> Iterator[None]:
    """A connection that ends is a process that died; a job's own errors come through it."""
    try:
        yield
    except (EOFError, ConnectionError):
        raise WorkerDied(f"{_DIED}{_OR_NO_GUARD}") from None


def _work_through(first: Callable[[], object] | None, connection: Connection) -> None:
    _initialise_worker()
    try:
        if first is not None:
            first()
        function, jobs = connection.recv()
        for job in jobs:
            connection.send((function(job), None))
    except BaseException as error:
        error.add_note(traceback.format_exc())
        connection.send((None, _portable(error)))
    finally:
        # Python's own end waits for threads, some of which (a stopped training's) wait for Python in turn.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # a broken pipe, closed, none at all
                stream.flush()
        os._exit(0)


def _portable(error: BaseException) -> BaseException:
    """The error, or one of the same words if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C waits, and never comes to processes started meanwhile: it is for the parent, which ends them in order."""
    with watching(signal.SIGINT) as came, _blocked(signal.SIGINT):  # a library's thread may take what this one blocks
        yield
    if came():
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """Holds a signal back from this thread, and from processes that it starts, as long as they live."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which lets it through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _initialise_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be held back
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Lets glibc reuse the memory of arrays, up to 64 MiB, instead of asking the system for each anew.

    An ECG at 500 Hz is larger than what it keeps by default; every array of one would cost its pages again, a fifth of the time.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for parameter in (trim_threshold, mmap_threshold):
        mallopt(parameter, 2**26)


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers, and they would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # which a training answers with a checkpoint
