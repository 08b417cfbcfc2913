"""Where a job's command runs: in this process, in local processes, or on a cluster.

An executor starts a command and returns something that can be asked how it goes. All three run the
same command line, so what failed on a cluster can be tried by hand.

Unusual: ``cluster`` goes through submitit, which is imported only then
(``pip install 'vidcomp[slurm]'``). submitit's own local executor stands in for SLURM in tests.
"""

import contextlib
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from vidcomp.config import UserError

EXECUTORS = ("processes", "here", "cluster")


@runtime_checkable
class Started(Protocol):
    """A command that was started."""

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""

    def stop(self) -> None:
        """End it now, if it still runs."""


@runtime_checkable
class Executor(Protocol):
    """`workers`: how many commands may run at once."""

    workers: int

    def start(self, command: Sequence[str], log: Path) -> Started:
        """Start a command; what it says goes to `log`."""
        ...


def make_executor(
    name: str, *, workers: int, folder: Path, options: Mapping[str, Any] | None = None
) -> Executor:
    """One of `EXECUTORS`. `options` are submitit's, `folder` is for its files."""
    match name:
        case "here":
            return Here()
        case "processes":
            return Processes(workers)
        case _:
            return Cluster(folder, workers, options or {})


class Here:
    """One after the other in this process, which saves each job the start of a Python. An error
    ends the job, not the process."""

    workers = 1

    def start(self, command: Sequence[str], log: Path) -> Started:
        tool, *words = command[1:]
        ending = _Ending()
        arguments = sys.argv
        with (
            log.open("w") as file,
            contextlib.redirect_stdout(file),
            contextlib.redirect_stderr(file),
        ):
            sys.argv = [tool, *words]
            try:
                with ending:
                    runpy.run_path(tool, run_name="__main__")
            finally:
                sys.argv = arguments
        return ending


@dataclass
class _Ending:
    """Around a job's code: notes how it ended. Interruptions pass."""

    status: int = 0

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> bool:
        if isinstance(error, SystemExit):
            self.status = error.code if isinstance(error.code, int) else int(bool(error.code))
            if self.status == _INTERRUPTED:
                raise KeyboardInterrupt
        elif isinstance(error, Exception):
            self.status = 1
            traceback.print_exception(error)  # its last line is the reason, as in a process
        return isinstance(error, Exception | SystemExit)

    def poll(self) -> int | None:
        return self.status

    def stop(self) -> None:
        return None


_INTERRUPTED = 130
"""The exit status of a tool that was interrupted (`vidcomp.cli`)."""


@dataclass
class Processes:
    """Local processes, the machine's cores shared out among them."""

    workers: int

    def start(self, command: Sequence[str], log: Path) -> Started:
        threads = str(max(1, (os.cpu_count() or 1) // self.workers))
        environment = {"OMP_NUM_THREADS": threads, **os.environ}
        with log.open("wb") as file:
            return _Process(
                subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
            )


@dataclass
class _Process:
    process: "subprocess.Popen[bytes]"

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


@dataclass
class Cluster:
    """Jobs of a SLURM cluster, through submitit. `options`: ``cluster`` (slurm, local, debug; by
    default what is there) and submitit's own, such as slurm_partition or timeout_min."""

    folder: Path
    workers: int
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def start(self, command: Sequence[str], log: Path) -> Started:
        try:
            import submitit
        except ImportError:
            raise UserError(
                "executor=cluster needs submitit: pip install 'vidcomp[slurm]'; or take "
                "executor=processes"
            ) from None
        options = dict(self.options)
        executor = submitit.AutoExecutor(self.folder, cluster=options.pop("cluster", None))
        try:
            executor.update_parameters(name=log.stem, **options)
        except NameError as error:
            raise UserError(f"cluster: {error}") from None
        run = submitit.helpers.CommandFunction(list(command))
        return _ClusterJob(executor.submit(run), log)


@dataclass
class _ClusterJob:
    job: Any  # submitit's Job
    log: Path

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        error = self.job.exception()
        for path in (self.job.paths.stdout, self.job.paths.stderr):
            if path.is_file():
                with self.log.open("ab") as file:
                    file.write(path.read_bytes())
        if error is not None:
            with self.log.open("a") as file:
                file.write(f"\n{_reason(error)}\n")
        return int(error is not None)

    def stop(self) -> None:
        if not self.job.done():
            self.job.cancel()


def _reason(error: BaseException) -> str:
    """What a command on the cluster said last, which submitit has between words of its own."""
    said = str(error).rpartition("FailedJobError: ")[2].partition("\n-----")[0]
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
