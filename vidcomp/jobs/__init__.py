"""Many commands, run where there is room: a graph of jobs, and the executors that run one."""

from vidcomp.jobs.executors import EXECUTORS, Executor, make_executor
from vidcomp.jobs.graph import Eta, Job, execute, log_of

__all__ = ["EXECUTORS", "Eta", "Executor", "Job", "execute", "log_of", "make_executor"]
