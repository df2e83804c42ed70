"""Prior covariance of linearised latencies under effects of many levels: the inner loop of the fit, jitted."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def covariance_of(decode, prefill, decode_keys, prefill_keys, variance, pooled):
    """Return the (2n, 2n) covariance of two latencies of n runs.

    `decode`, `prefill` (2n, k): sensitivities to each parameter of the decode and of the prefill worker, in units of
    the parameter's spread. `*_keys` (n, levels): integer keys. Effects of one level are independent between keys and
    parameters with `variance[level]`, so cov = sum over shared levels of variance x (sensitivities' inner product),
    summed over the workers of both runs.
    """
    runs, levels = decode_keys.shape
    size = decode.shape[1]
    out = np.zeros((2 * runs, 2 * runs))
    for i in range(runs):
        for j in range(i + 1):
            for first in range(1 + pooled[i]):
                a = decode if first == 0 else prefill
                a_keys = decode_keys if first == 0 else prefill_keys
                for second in range(1 + pooled[j]):
                    b = decode if second == 0 else prefill
                    b_keys = decode_keys if second == 0 else prefill_keys
                    shared = 0.0
                    for level in range(levels):
                        if a_keys[i, level] == b_keys[j, level]:
                            shared += variance[level]
                    for p in range(2):
                        for q in range(2):
                            inner = 0.0
                            for k in range(size):
                                inner += a[2 * i + p, k] * b[2 * j + q, k]
                            out[2 * i + p, 2 * j + q] += shared * inner
    for i in range(2 * runs):
        for j in range(i):
            out[j, i] = out[i, j]
    for run in range(runs):
        out[2 * run, 2 * run + 1] = out[2 * run + 1, 2 * run]
    return out
