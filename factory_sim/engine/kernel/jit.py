"""How the kernel is compiled.

Nothing in it allocates, so reference counting of arrays (`_nrt`), which took almost half of the time, is off. `hot`
functions are inlined: most take a dozen arrays, and passing those costs more than the work.
"""

from numba import njit

cold = njit(cache=True, nogil=True, _nrt=False)
hot = njit(cache=True, nogil=True, _nrt=False, forceinline=True)
