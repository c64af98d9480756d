"""Compresses generated text with zlib, checks the round trip and prints the rate."""

import argparse
import random
import time
import zlib

WORDS = ("loss", "step", "epoch", "tokens", "rank", "node", "batch", "lr")


def log_lines(size: int) -> bytes:
    """Text like a training log: neither constant nor random."""
    numbers = random.Random(0)
    lines = [f"{numbers.choice(WORDS)} {numbers.random():.6f}\n" for _ in range(65536)]
    text = "".join(lines).encode()
    return (text * (size // len(text) + 1))[:size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=8)
    parser.add_argument("--level", type=int, default=6)
    arguments = parser.parse_args()

    data = log_lines(arguments.megabytes * 10**6)
    started = time.perf_counter()
    packed = zlib.compress(data, arguments.level)
    seconds = time.perf_counter() - started
    if zlib.decompress(packed) != data:
        raise SystemExit("the round trip gave different data")
    print(f"{len(data)} bytes became {len(packed)}")
    print(f"performance: {len(data) / 1e6 / seconds:.2f} MB/s")


if __name__ == "__main__":
    main()
