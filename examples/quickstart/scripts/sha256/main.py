"""Hashes blocks of several sizes with SHA-256 and writes one row for each size."""

import argparse
import csv
import hashlib
import os
import time
from pathlib import Path

BLOCK_SIZES = (64, 1024, 65536, 1048576)
OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def megabytes_per_second(block_size: int, seconds: float) -> float:
    """The rate of hashing one block after another for so long."""
    block, count, spent = bytes(block_size), 0, 0.0
    at_once = max(1, 65536 // block_size)
    started = time.perf_counter()
    while spent < seconds:
        for _ in range(at_once):
            hashlib.sha256(block).digest()
        count += at_once
        spent = time.perf_counter() - started
    return count * block_size / 1e6 / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each block size")
    arguments = parser.parse_args()

    if hashlib.sha256(b"abc").hexdigest() != OF_ABC:
        raise SystemExit("SHA-256 of 'abc' is wrong")
    with Path(os.environ["MAD_OUTPUT_CSV"]).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["model", "performance", "metric", "block_size"])
        for size in BLOCK_SIZES:
            rate = megabytes_per_second(size, arguments.seconds)
            rows.writerow([f"block_{size}", f"{rate:.2f}", "MB/s", size])
            print(f"{size} byte blocks: {rate:.2f} MB/s")


if __name__ == "__main__":
    main()
