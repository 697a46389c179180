"""Runs in the background: one worker thread, a queue, progress anyone can read, cancel.

State that must survive the process lies in the store; this holds only what is in flight.
"""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass, field

from shield_engine.engine import Shield
from shield_engine.errors import ShieldError
from shield_engine.runs.execution import Progress, execute
from shield_engine.store import RunStatus, Store

__all__ = ["JobState", "JobWorker"]

logger = logging.getLogger(__name__)

_ACTIVE = frozenset({"queued", RunStatus.RUNNING})


@dataclass(slots=True)
class JobState:
    """One run's way through the worker."""

    run_id: str
    status: str = "queued"
    progress: Progress | None = None
    error: str | None = None
    retry_errors: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)


class JobWorker:
    """Scores submitted runs one after the other on a daemon thread of its own."""

    def __init__(self, store: Store, shield: Shield) -> None:
        self._store = store
        self._shield = shield
        self._queue: queue.Queue[JobState] = queue.Queue()
        self._jobs: dict[str, JobState] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="shield-jobs", daemon=True)
        self._thread.start()

    def submit(self, run_id: str, *, retry_errors: bool = False) -> JobState:
        """Queue a run; a run that is queued or running already is left as it is."""
        with self._lock:
            known = self._jobs.get(run_id)
            if known is not None and known.status in _ACTIVE and not known.cancel.is_set():
                return known
            job = self._jobs[run_id] = JobState(run_id, retry_errors=retry_errors)
        self._queue.put(job)
        return job

    def job(self, run_id: str) -> JobState | None:
        """Return the state of a run this worker was given, or `None`."""
        with self._lock:
            return self._jobs.get(run_id)

    def active(self) -> list[JobState]:
        """Return what is queued or running, oldest first."""
        with self._lock:
            return [job for job in self._jobs.values() if job.status in _ACTIVE]

    def cancel(self, run_id: str) -> bool:
        """Ask a run to stop after its batch; return whether it was queued or running."""
        job = self.job(run_id)
        if job is None or job.status not in _ACTIVE:
            return False
        job.cancel.set()
        return True

    def wait(self) -> None:
        """Block until everything submitted so far is through."""
        self._queue.join()

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            try:
                self._run(job)
            finally:
                self._queue.task_done()

    def _run(self, job: JobState) -> None:
        job.status = RunStatus.RUNNING

        def note(progress: Progress) -> None:
            job.progress = progress

        try:
            run = execute(
                self._store,
                self._shield,
                job.run_id,
                on_progress=note,
                cancel=job.cancel,
                retry_errors=job.retry_errors,
            )
            job.status = run.status
        except ShieldError as error:
            job.error, job.status = str(error), RunStatus.FAILED
            logger.warning("run %s failed: %s", job.run_id, error)
        except Exception as error:
            # The thread must outlive any one run; the full trace goes to the log.
            job.error, job.status = f"{type(error).__name__}: {error}", RunStatus.FAILED
            logger.exception("run %s failed unexpectedly", job.run_id)
