"""Multiplies two square matrices in plain Python, checks the product and prints the best rate."""

import argparse
import math
import random
import time

Matrix = list[list[float]]


def multiply(left: Matrix, right: Matrix) -> Matrix:
    columns = list(zip(*right, strict=True))
    return [[sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in left]


def times(matrix: Matrix, vector: list[float]) -> list[float]:
    return [math.fsum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def is_product(product: Matrix, left: Matrix, right: Matrix, vector: list[float]) -> bool:
    """Whether product @ v equals left @ (right @ v), which takes few operations to check."""
    expected = times(left, times(right, vector))
    return all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(times(product, vector), expected, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    numbers, size = random.Random(0), arguments.size
    left, right = ([[numbers.random() for _ in range(size)] for _ in range(size)] for _ in range(2))
    best = math.inf
    for _ in range(arguments.repeats):
        started = time.perf_counter()
        product = multiply(left, right)
        best = min(best, time.perf_counter() - started)
        if not is_product(product, left, right, [numbers.random() for _ in range(size)]):
            raise SystemExit("the product is wrong")
    print(f"performance: {2 * size**3 / 1e6 / best:.2f} MFLOP/s")


if __name__ == "__main__":
    main()
