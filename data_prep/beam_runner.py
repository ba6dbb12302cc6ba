"""Jobs over Apache Beam, on this machine or on a cluster that shares a file system with it."""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ecgtf.atomic import write_atomically
from ecgtf.data_prep.conversion import Job

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

Result = TypeVar("Result")

_LOOK_EVERY = 0.5  # seconds


def pipeline_options(arguments: Sequence[str] = ()) -> PipelineOptions:
    """Beam's options from arguments such as `--runner=FlinkRunner`.

    Raises:
        ValueError: if Beam is not installed, or does not understand them.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
        from apache_beam.runners.runner import create_runner
    except ModuleNotFoundError:
        raise ValueError("--runner beam needs Apache Beam; install it with: pip install 'ecgtf[beam]'") from None
    complaint = StringIO()
    try:
        with redirect_stderr(complaint):
            options = PipelineOptions(list(arguments))
            options.get_all_options()  # reads them: a mistake would end the program later
        standard = options.view_as(StandardOptions)
        # what DirectRunner comes to after it has tried to download another runner
        standard.runner = standard.runner or "FnApiRunner"
        create_runner(standard.runner)
    except SystemExit:
        raise ValueError(f"Apache Beam: {_last_line(complaint.getvalue()).split('error: ')[-1]}") from None
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"Apache Beam: {_last_line(error)}") from None
    return options


def run_jobs_on_beam(function: Callable[[Job], Result], jobs: Sequence[Job], arguments: Sequence[str] = ()) -> Iterator[Result]:
    """`function` of each job, as they get done, like `ecgtf.workers.run_jobs`; the work is a Beam pipeline.

    Without a `--runner` the pipeline runs in this process; with `--direct_running_mode=multi_processing` and
    `--direct_num_workers=N` in processes of this machine. Workers elsewhere need this package installed, and a file system
    that they share with this machine, where the jobs' files have the same absolute paths: results come back as files in the
    folder of the first job. Their names end with `.tmp`, so a preparation that continues a killed one removes them.

    If the caller stops early, jobs that have not begun are dropped; close the iterator to wait for those that have. Whether a
    worker process that dies ends the pipeline is up to the runner: Beam's own on this machine waits for it for ever.

    Args:
        function: a module's function; it and the jobs are pickled.
        jobs: its arguments.
        arguments: Beam's options, such as `--runner=FlinkRunner`.

    Raises:
        ValueError: if Beam is not installed or does not understand the arguments.
        RuntimeError: if a job or the pipeline fails, or workers do not share the file system.
    """
    if not jobs:
        return
    options = pipeline_options(arguments)
    sign = jobs[0].path.absolute().parent / f".beam-{uuid.uuid4().hex}.tmp"
    sign.touch()
    # Beam would choose how to encode a dataclass by its version
    messages = [pickle.dumps((function, job, _result_of(sign, number))) for number, job in enumerate(jobs)]
    waiting = {_result_of(sign, number).name: job for number, job in enumerate(jobs)}
    thread = ThreadPoolExecutor(1)
    try:
        running = thread.submit(_run, options, messages, sign)
        while waiting:
            ended = running.done()  # asked before looking, so that no result is missed
            for name in waiting.keys() & os.listdir(sign.parent):
                yield _read(sign.with_name(name), waiting.pop(name))
            if ended and waiting:
                raise RuntimeError(_why_unfinished(running, len(waiting), sign.parent))
            wait([running], _LOOK_EVERY)
    finally:
        sign.unlink(missing_ok=True)
        thread.shutdown(wait=True)
        for leftover in sign.parent.glob(f"{sign.stem}.*"):
            leftover.unlink(missing_ok=True)


def _run(options: PipelineOptions, messages: Sequence[bytes], sign: Path) -> None:
    import apache_beam as beam

    pipeline = beam.Pipeline(options=options)
    pipeline | beam.Create(messages) | beam.Reshuffle() | beam.Map(_perform, str(sign))
    pipeline.run().wait_until_finish()


def _perform(message, sign):  # no annotations: Beam would check them
    """Does a job in a worker and writes what came of it, unless the sign that results are waited for is gone."""
    if not os.path.exists(sign):
        return
    function, job, path = pickle.loads(message)
    try:
        outcome = pickle.dumps((function(job), None))
    except Exception as error:  # raised here, a runner would try again and tell it with a stack
        outcome = pickle.dumps((None, f"{type(error).__name__}: {' '.join(str(error).split())}"))
    write_atomically(path, outcome)


def _result_of(sign: Path, number: int) -> Path:
    return sign.with_name(f"{sign.stem}.{number}.tmp")


def _read(path: Path, job: Job) -> Result:
    result, error = pickle.loads(path.read_bytes())
    path.unlink()
    if error is not None:
        raise RuntimeError(f"{job.path.name} could not be written: {error}")
    return result


def _why_unfinished(running: Future, count: int, folder: Path) -> str:
    if error := running.exception():
        return f"the pipeline failed: {_last_line(error)}"
    return f"the pipeline ended without {count} results in {folder}: do all its workers share this folder?"


def _last_line(text: object) -> str:
    return (str(text).strip().splitlines() or [type(text).__name__])[-1].strip()
