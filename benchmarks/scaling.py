"""What a request costs the kernel, over the number of sequences that run together and over the length of answers.

    python benchmarks/scaling.py [--requests N]

CPU microseconds a request, best of three. Cost may grow as the logarithm of the batch, and not with the answer.
"""

import argparse

import kernel_cases as cases
import numpy as np
from kernel import timed

BATCHES = (4, 16, 64, 256, 1024, 4096)
ANSWERS = (125, 500, 2000, 8000, 32000)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=400_000)
    n = parser.parse_args().requests
    timed(cases.batches(1000, 4))
    print("sequences at once   us a request   us per log2(2 x batch)")
    for batch in BATCHES:
        cost_us = 1e6 / timed(cases.batches(n, batch))[0]
        print(f"{batch:17d}   {cost_us:12.3f}   {cost_us / np.log2(2 * batch):22.3f}", flush=True)
    print("\ntokens an answer   us a request   mean batch of a replica")
    for tokens in ANSWERS:
        rate, _, totals = timed(cases.reasoning(n, float(tokens)))
        batch = totals["sequence_seconds"].sum() / totals["busy_s"].sum()
        print(f"{tokens:16,d}   {1e6 / rate:12.3f}   {batch:23.1f}", flush=True)


if __name__ == "__main__":
    main()
