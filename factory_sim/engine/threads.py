"""Independent pieces of work side by side on threads: the kernel releases the interpreter lock while it plays."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


def side_by_side(function: Callable, items: Iterable, threads: int | None = None) -> list:
    """Results of `function` for each item, in order, computed on `threads` threads (default: one a processor).

    The first error (Ctrl-C too) is raised at once: what has not begun is dropped and what runs is not waited for.
    """
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        futures = [pool.submit(function, item) for item in items]
        results = [future.result() for future in futures]
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    return results
