"""Keep freed memory in the process: on a CPU a training step frees and takes the same blocks again.

glibc returns large blocks to the system as soon as they are free, so each step pays for thousands
of fresh pages (17,900 faults a step of the demo, up to 12 % of its time). Peak memory stays.
"""

import ctypes
import platform

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Tell glibc's allocator so, for the rest of the process; elsewhere there is nothing to do."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
