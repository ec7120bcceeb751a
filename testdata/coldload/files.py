"""Reading files, and the kernel's page cache."""

import ctypes
import glob
import mmap
import os
import threading
import time

import numpy as np

PAGE = mmap.PAGESIZE
PIECE = 4 << 20
SHARE = 64 << 20  # bytes that a thread takes at once

libc = ctypes.CDLL(None, use_errno=True)
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


def shards(directory):
    return sorted(glob.glob(os.path.join(directory, "*.safetensors")))


def size(paths):
    return sum(os.path.getsize(p) for p in paths)


def resident(path):
    """Which pages of a file are in the page cache, as an array of booleans."""
    n = os.path.getsize(path)
    with open(path, "rb") as f, mmap.mmap(f.fileno(), n, prot=mmap.PROT_READ) as m:
        pages = np.zeros(-(-n // PAGE), np.uint8)
        data = np.frombuffer(m, np.uint8)
        failed = libc.mincore(data.ctypes.data, n, pages.ctypes.data)
        del data
        if failed:
            raise OSError(ctypes.get_errno(), "mincore", path)
    return pages & 1 != 0


def drop(paths):
    """Drop files from the page cache, and check that they are gone."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        pages = resident(path)
        if pages.sum() > len(pages) // 100 + 2:
            raise RuntimeError(f"{path}: {pages.sum()} of {len(pages)} pages stay in memory")


def read(paths, threads, direct=False):
    """Read all bytes with pread by several threads. Return the seconds."""
    jobs = iter([(p, at) for p in paths for at in range(0, os.path.getsize(p), SHARE)])
    lock, failures = threading.Lock(), []
    flags = os.O_RDONLY | (os.O_DIRECT if direct else 0)

    def work():
        buffer = memoryview(mmap.mmap(-1, PIECE))  # on a page, as O_DIRECT requires
        while True:
            with lock:
                job = next(jobs, None)
            if job is None:
                return
            fd = os.open(job[0], flags)
            try:
                at, end = job[1], min(job[1] + SHARE, os.fstat(fd).st_size)
                while at < end:
                    n = os.preadv(fd, [buffer], at)
                    if n <= 0:
                        raise EOFError(f"{job[0]} ends at byte {at}")
                    at += n
            finally:
                os.close(fd)

    def guarded():
        try:
            work()
        except Exception as e:
            failures.append(e)

    begin = time.monotonic()
    all_threads = [threading.Thread(target=guarded) for _ in range(threads)]
    for t in all_threads:
        t.start()
    for t in all_threads:
        t.join()
    if failures:
        raise failures[0]
    return time.monotonic() - begin


def copy_mapped(path, begin, end):
    """Copy a range of a file out of a mapping, forward."""
    buffer = np.empty(1 << 20, np.uint8)
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        data = np.frombuffer(m, np.uint8)
        for at in range(begin, end, len(buffer)):
            n = min(len(buffer), end - at)
            buffer[:n] = data[at : at + n]
        del data


def spread(paths, begin, n):
    """The ranges of n bytes from an offset on, as if the files were one."""
    for path in paths:
        length = os.path.getsize(path)
        if begin < length and n > 0:
            yield path, max(begin, 0), min(length, begin + n)
            n -= min(length, begin + n) - max(begin, 0)
        begin = max(begin - length, 0) if begin >= length else 0
