"""Prior covariance of linearised latencies under effects of many levels: the inner loop of the fit, jitted."""

import numpy as np
from numba import njit


def covariance_of(decode, prefill, decode_keys, prefill_keys, variance, pooled):
    """Return the (2n, 2n) covariance of two latencies of n runs.

    `decode`, `prefill` (2n, k): sensitivities to each parameter of the decode and of the prefill worker, in units of
    the parameter's spread. `*_keys` (n, levels): integer keys. Effects of one level are independent between keys and
    parameters with `variance[level, parameter]`, so cov = sum over parameters of the product of sensitivities times the
    variance of all shared levels, summed over the workers of both runs.
    """
    keys, worker = np.unique(np.concatenate([decode_keys, prefill_keys]), axis=0, return_inverse=True)
    first, second = worker.reshape(2, -1)
    return _covariance(decode, prefill, first, second, shared_variance(keys, variance), pooled)


@njit(cache=True, nogil=True)
def shared_variance(keys, variance):
    """Variance of each parameter over the levels that two workers share, shape (workers, workers, k)."""
    workers, levels = keys.shape
    out = np.zeros((workers, workers, variance.shape[1]))
    for i in range(workers):
        for j in range(i + 1):
            for level in range(levels):
                if keys[i, level] == keys[j, level]:
                    out[i, j] += variance[level]
            out[j, i] = out[i, j]
    return out


@njit(cache=True, nogil=True)
def _covariance(decode, prefill, decode_worker, prefill_worker, shared, pooled):
    runs, size = len(decode_worker), decode.shape[1]
    out = np.zeros((2 * runs, 2 * runs))
    for i in range(runs):
        for j in range(i + 1):
            for first in range(1 + pooled[i]):
                a = decode if first == 0 else prefill
                one = decode_worker[i] if first == 0 else prefill_worker[i]
                for second in range(1 + pooled[j]):
                    b = decode if second == 0 else prefill
                    variance = shared[one, decode_worker[j] if second == 0 else prefill_worker[j]]
                    for p in range(2):
                        for q in range(2):
                            inner = 0.0
                            for k in range(size):
                                inner += a[2 * i + p, k] * b[2 * j + q, k] * variance[k]
                            out[2 * i + p, 2 * j + q] += inner
    for i in range(2 * runs):
        for j in range(i):
            out[j, i] = out[i, j]
    for run in range(runs):
        out[2 * run, 2 * run + 1] = out[2 * run + 1, 2 * run]
    return out
