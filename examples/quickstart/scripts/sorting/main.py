"""Sorts random numbers, checks the order and prints the best rate."""

import argparse
import itertools
import math
import random
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numbers", type=int, required=True)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()

    source = random.Random(0)
    numbers = [source.random() for _ in range(arguments.numbers)]
    best, ordered = math.inf, numbers
    for _ in range(arguments.repeats):
        started = time.perf_counter()
        ordered = sorted(numbers)
        best = min(best, time.perf_counter() - started)
    if any(a > b for a, b in itertools.pairwise(ordered)) or math.fsum(ordered) != math.fsum(numbers):
        raise SystemExit("the list is not sorted, or holds other numbers")
    print(f"performance: {len(numbers) / 1e6 / best:.3f} million_numbers/s")


if __name__ == "__main__":
    main()
