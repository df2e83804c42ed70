"""How the kernel is compiled.

Nothing in it allocates, so reference counting of arrays (`_nrt`), which took almost half of the time, is off. `hot`
functions are inlined: most take a dozen arrays, and passing those costs more than the work. Only entry points are
cached: numba looks at an entry's own file alone to tell whether its cache is stale, so entries close over `SOURCES`, a
checksum of all compiled files, which numba's cache index does look at.
"""

import zlib
from pathlib import Path

from numba import njit

cold = njit(nogil=True, _nrt=False)
hot = njit(nogil=True, _nrt=False, forceinline=True)
entry = njit(nogil=True, _nrt=False, cache=True)

_COMPILED = (
    "admission", "arrivals", "batch", "completion", "events", "jit", "kv_cache", "leaving", "loop", "prefix", "ranks", "router", "span",
    "state", "trouble",
)  # fmt: skip
SOURCES = zlib.crc32(b"".join((Path(__file__).parent / f"{name}.py").read_bytes() for name in _COMPILED)) or 1
