"""Asks the kernel to write memory to swap now: all of a process, or a file in memory, as PID or PATH of each argument.

process_madvise(2) and madvise(2) with MADV_PAGEOUT do what a lack of memory would do, but to these pages alone. Memory that
is locked, and files on file systems that are never swapped, stay.
"""
import ctypes, mmap, os, sys

PROCESS_MADVISE, MADV_PAGEOUT = 440, 21
libc = ctypes.CDLL(None, use_errno=True)


class Range(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def page_process_out(pid):
    handle = os.pidfd_open(pid)
    for line in open(f"/proc/{pid}/maps"):
        first, last = (int(address, 16) for address in line.split()[0].split("-"))
        vector = Range(first, last - first)
        # Locked memory is refused, EINVAL.
        libc.syscall(PROCESS_MADVISE, handle, ctypes.byref(vector), ctypes.c_size_t(1), MADV_PAGEOUT, 0)


def page_file_out(path):
    descriptor = os.open(path, os.O_RDONLY)
    size = os.fstat(descriptor).st_size
    if size:
        with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped:
            mapped[0]
            mapped.madvise(MADV_PAGEOUT)


for argument in sys.argv[1:]:
    page_process_out(int(argument)) if argument.isdigit() else page_file_out(argument)
