"""Memory that a step has freed stays with the process, for the next step to take again."""

import ctypes
import sys

# Parameters of mallopt(3), by their values in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = -1
_LARGEST = 32 * 2**20  # bytes; glibc takes no larger threshold


def keep_freed_memory() -> None:
    """Has the C library keep freed memory; where it is not glibc, nothing changes.

    By default glibc returns large blocks to the system, which hands them out again zeroed, by one
    page fault for every 4 KiB: on the CPU, a large part of a convolutional network's step. The
    process stays as large as its largest step was.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
