"""Copies a large buffer several times and prints the best rate, counting bytes read and bytes written."""

import argparse
import random
import time


def copy_seconds(source: memoryview, target: memoryview) -> float:
    started = time.perf_counter()
    target[:] = source
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=8)
    arguments = parser.parse_args()

    size = arguments.megabytes * 10**6
    source = memoryview(random.Random(0).randbytes(size))
    target = memoryview(bytearray(size))
    times = [copy_seconds(source, target) for _ in range(arguments.repeats)]
    if target != source:
        raise SystemExit("the copy differs from its source")
    print("GB/s of each copy:", *(f"{2 * size / 1e9 / seconds:.2f}" for seconds in times))
    print(f"performance: {2 * size / 1e9 / min(times):.2f} GB/s")


if __name__ == "__main__":
    main()
