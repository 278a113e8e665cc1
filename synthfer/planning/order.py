"""Orders of which every prefix is balanced: exact integer arithmetic, nothing stored, any position in O(log) steps.

`Interleave` mixes sequences of unequal lengths in proportion (Bresenham's line, merged pairwise). `Cycles`
walks through all combinations of several axes so that each axis runs through its values in turn. The phases
between the axes move by Kronecker's (Weyl's) irrational rotations, so that no two axes stay locked together.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul

# The step of an axis' phase is the square root of its prime: rationally independent of all the others.
_PRIMES = (2, 3, 5, 7, 11, 13, 17)


class Interleave:
    """Merges sequences of the given lengths (integers >= 0): every prefix holds all of them in proportion."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._ends = [0, *accumulate(lengths)]

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, position: int) -> tuple[int, int]:
        """Which sequence stands at `position` (0 <= position < len), and which of its items, in O(log) steps.

        Of the first i positions of a pair of lengths a and b, floor(i a / (a + b)) belong to the first.
        """
        low, high = 0, len(self._ends) - 1
        while high - low > 1:
            middle = (low + high) // 2
            first, both = (self._ends[end] - self._ends[low] for end in (middle, high))
            before = position * first // both
            if (position + 1) * first // both > before:
                position, high = before, middle
            else:
                position, low = position - before, middle
        return low, position


class Cycles:
    """All combinations of one digit per axis, in an order in which each axis runs through its digits in turn.

    The earlier digits of combination k have the period B_j, the product of their sizes. Digit j is the sum,
    modulo its size n_j, of
    - k, which would be all there is to do (Chinese remaindering) were n_j and B_j coprime;
    - how often k has passed lcm(B_j, n_j), where all digits would come round together: so each combination
      stands once;
    - a phase, floor(sqrt(p_j) r), r being the start of the axis' present round within k mod B_j. The earlier
      digits determine it, so each combination still stands once; and axes with a common factor do not stay
      locked together.
    Where n_j is coprime to B_j or divides it, its digits differ by at most one in every prefix; else by at
    most two in all that was tried. Most pairs of digits are nearer to even than in a random order.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        assert len(sizes) <= len(_PRIMES), "one prime for each axis"
        before = [1, *accumulate(sizes, mul)]
        self._length = before[-1]
        self._axes = [
            (size, earlier, math.lcm(earlier, size), prime if math.gcd(earlier, size) > 1 else 0)
            for size, earlier, prime in zip(sizes, before, _PRIMES, strict=False)
        ]

    def __len__(self) -> int:
        return self._length

    def digits(self, k: int) -> list[int]:
        """The digits, 0 <= d_j < n_j, of combination k, 0 <= k < len."""
        digits = []
        for size, before, closing, prime in self._axes:
            within = k % before
            phase = math.isqrt(prime * (within - within % size) ** 2)
            digits.append((k + k % (before * size) // closing + phase) % size)
        return digits
