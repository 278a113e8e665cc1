"""Codes of edits: what a plan row asks for, as a point of the network's plane.

- expression (intensity): on the line from neutral to the row's expression, at that share of it
- polar (theta, rho): a direction in radians and a distance from the origin
- point (x, y): the point itself
A linear space reaches beyond the strength 1 that it was trained with to `MOST_RHO` (SyntFER uses 1.2); a Gaussian one
ends at -1 and 1. Networks have AffectNet's order of classes; here and outside it is that of `EXPRESSIONS`.
"""

import math

import numpy as np
import torch

from synthfer.expressions import EXPRESSIONS, ORDERS
from synthfer.generators.expression_editor.networks import Generator
from synthfer.planning.edits import MOST_RHO
from synthfer.sample import Row

TO_NETWORK = tuple(ORDERS["affectnet"].index(name) for name in EXPRESSIONS)
"""A label's class in the network's order."""
_NUMBERS = {"expression": ("intensity",), "polar": ("theta", "rho"), "point": ("x", "y")}
_SLACK = 1e-6  # codes are rounded to single precision


class Plane:
    """The landmarks of a network's plane, and the points of rows on it."""

    def __init__(self, network: Generator) -> None:
        self.space = network.config.space
        with torch.no_grad():
            self.landmarks = network.landmarks().double().cpu().numpy()[list(TO_NETWORK)]
        """(7, 2), where each expression is at full strength, in the order of `EXPRESSIONS`."""

    def point(self, row: Row) -> np.ndarray:
        """The row's point, float32 (2,); `ValueError` says what is wrong with its code and what it may be."""
        numbers = _numbers(row)
        if row.operation == "expression":
            if row.label is None or not 0 <= row.label < len(EXPRESSIONS):
                raise ValueError(f"the row asks for no expression: its label is {row.label}, expected 0..6")
            point = self._towards(row.label, numbers[0])
        elif row.operation == "polar":
            theta, rho = numbers
            if abs(theta) > 2 * math.pi + _SLACK:
                raise ValueError(f"theta is {theta:g}, expected -2 pi..2 pi radians")
            if not 0 <= rho <= MOST_RHO + _SLACK:
                raise ValueError(f"rho is {rho:g}, expected 0..{MOST_RHO:g}")
            point = rho * np.array([math.cos(theta), math.sin(theta)])
        else:
            point = np.array(numbers)
        return self._inside(point).astype(np.float32)

    def _towards(self, label: int, intensity: float) -> np.ndarray:
        most = MOST_RHO if self.space == "linear" else 1.0
        if not 0 <= intensity <= most + _SLACK:
            raise ValueError(f"intensity is {intensity:g}, expected 0..{most:g} in a {self.space} space")
        neutral = self.landmarks[EXPRESSIONS.index("neutral")]
        point: np.ndarray = neutral + intensity * (self.landmarks[label] - neutral)
        return point

    def _inside(self, point: np.ndarray) -> np.ndarray:
        shown = ", ".join(f"{value:.4g}" for value in point)
        if self.space == "linear" and np.hypot(*point) > MOST_RHO + _SLACK:
            raise ValueError(f"the point ({shown}) is further than {MOST_RHO:g} from the origin of a linear space")
        if self.space == "gaussian" and np.abs(point).max() > 1 + _SLACK:
            raise ValueError(f"the point ({shown}) is outside -1..1 of a Gaussian space")
        return point


def _numbers(row: Row) -> tuple[float, ...]:
    """The code, as many finite numbers as the operation takes."""
    if row.operation not in _NUMBERS:
        raise ValueError(f"unknown operation {row.operation!r}; an edit is one of {', '.join(_NUMBERS)}")
    names, code = _NUMBERS[row.operation], row.code or ()
    if len(code) != len(names) or not all(map(math.isfinite, code)):
        raise ValueError(f"the code of {row.operation} is {list(code)}, expected ({', '.join(names)}), finite")
    return code
