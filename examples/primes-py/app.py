"""Finds prime numbers, written in Python and compiled to a WASI 0.2 component with its interpreter inside.

Arguments: ``LIMIT`` lists the primes below it, ``FILE`` factors each number in it, one a line; without arguments the
numbers come from standard input. ``PRIMES_PER_LINE`` shapes the list. Only modules that are imported at the top are
part of the component.
"""

import os
import sys
from collections.abc import Iterator
from math import isqrt


def sieve(limit: int) -> list[int]:
    """All primes below ``limit``."""
    is_prime = bytearray([0, 0]) + bytearray([1]) * max(limit - 2, 0)
    for n in range(2, isqrt(max(limit - 1, 0)) + 1):
        if is_prime[n]:
            is_prime[n * n : limit : n] = bytes(len(range(n * n, limit, n)))
    return [n for n in range(limit) if is_prime[n]]


def factors(number: int) -> Iterator[int]:
    """The prime factors of ``number``, smallest first."""
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            yield divisor
            number //= divisor
        divisor += 1
    if number > 1:
        yield number


def describe(line: str) -> str:
    """One line of the answer; raises ``ValueError`` when ``line`` is no number that we factor."""
    number = int(line)
    if not 1 < number <= 10**12:
        raise ValueError(f"{number} is not between 2 and 10^12")
    found = list(factors(number))
    return f"{number} is prime" if len(found) == 1 else f"{number} = {' * '.join(map(str, found))}"


def main(arguments: list[str]) -> bool:
    if arguments and arguments[0].isdecimal():
        primes, width = sieve(int(arguments[0])), int(os.environ.get("PRIMES_PER_LINE", "10"))
        for start in range(0, len(primes), width):
            print(*primes[start : start + width])
        print(f"{len(primes)} primes below {arguments[0]}")
        return True
    fine = True
    with open(arguments[0]) if arguments else sys.stdin as lines:
        for line in lines:
            try:
                print(describe(line))
            except ValueError as error:
                print(f"primes: {error}", file=sys.stderr)
                fine = False
    return fine


class Run:
    """What the component exports: ``wasi:cli/run``."""

    def run(self) -> None:
        try:
            fine = main(sys.argv[1:])
        except OSError as error:
            print(f"primes: {error}", file=sys.stderr)
            fine = False
        sys.stdout.flush()
        if not fine:
            sys.exit(1)
