"""The cells of one expression: every combination of attributes, in an order that is balanced at any point."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from synthfer.expressions import index_of
from synthfer.planning.order import Cycles
from synthfer.planning.vocabulary import Assignment, Vocabulary, ancestors, assignments, parent_values
from synthfer.sample import seed_of


@dataclass(frozen=True, slots=True)
class _Axis:
    """Attributes that are chosen together: equally many choices for every combination of values in `by`."""

    names: tuple[str, ...]
    by: tuple[str, ...]
    choices: Mapping[tuple[str, ...], Sequence[tuple[str, ...]]]

    def __len__(self) -> int:
        return len(next(iter(self.choices.values())))


class Grid:
    """The cells of an expression as a sequence that starts again at its end: cell k of n is cell k mod n.

    The seed shuffles the values of each attribute; all expressions start at another value of it, so that every
    prefix of a plan is balanced over all expressions together, too. Smaller axes come first, so that all their
    combinations appear early.
    """

    def __init__(self, vocabulary: Vocabulary, expression: str, seed: int) -> None:
        self._expression = expression
        self._start = index_of(expression)
        self._axes = [_axis(vocabulary, names, expression, seed) for names in _blocks(vocabulary, expression)]
        order = sorted(range(len(self._axes)), key=lambda i: (len(self._axes[i]), self._axes[i].names))
        self._ranks = [order.index(i) for i in range(len(order))]
        self._cycles = Cycles([len(self._axes[i]) for i in order])

    def __len__(self) -> int:
        return len(self._cycles)

    def cell(self, k: int) -> Assignment:
        """The value of every attribute, and `expression`, in cell k >= 0."""
        digits = self._cycles.digits(k % len(self))
        cell = {"expression": self._expression}
        for axis, rank in zip(self._axes, self._ranks, strict=True):
            choices = axis.choices[tuple(cell[parent] for parent in axis.by)]
            cell.update(zip(axis.names, choices[(digits[rank] + self._start) % len(choices)], strict=True))
        return cell


def _blocks(vocabulary: Vocabulary, expression: str) -> list[tuple[str, ...]]:
    """Splits the attributes into axes: those whose number of values depends on others are linked with them.

    Each axis comes after those that its choices depend on: linked ones hold all of theirs, so they are first.
    """
    attributes = vocabulary.attributes
    blocks: list[set[str]] = []
    for name, attribute in attributes.items():
        keys = parent_values(attributes, attribute.by, [expression])
        uneven = len({len(attribute.groups[key]) for key in keys}) > 1
        block = ancestors(attributes, [name]) - {"expression"} if uneven else {name}
        block = block.union(*(other for other in blocks if other & block))
        blocks = [*(other for other in blocks if not other & block), block]
    ordered = [tuple(name for name in attributes if name in block) for block in blocks]
    return sorted(ordered, key=lambda names: len(names) == 1)


def _axis(vocabulary: Vocabulary, names: tuple[str, ...], expression: str, seed: int) -> _Axis:
    attributes = vocabulary.attributes
    if len(names) == 1:
        (name,) = names
        by, groups = attributes[name].by, attributes[name].groups
        keys = parent_values(attributes, by, [expression])
        return _Axis(names, by, {key: [(value,) for value in _shuffled(groups[key], name, seed)] for key in keys})
    tuples = {tuple(cell[name] for name in names) for cell in assignments(attributes, names, expression)}
    ranks = {name: _shuffled(attributes[name].values, name, seed) for name in names}
    ordered = sorted(tuples, key=lambda one: [ranks[name].index(value) for name, value in zip(names, one, strict=True)])
    return _Axis(names, (), {(): _spread(ordered)})


def _shuffled(values: Iterable[str], name: str, seed: int) -> list[str]:
    return sorted(values, key=lambda value: seed_of(seed, "order", name, value))


def _spread(tuples: list[tuple[str, ...]], depth: int = 0) -> list[tuple[str, ...]]:
    """Reorders sorted tuples so that every prefix holds the values of each attribute in proportion."""
    if len(tuples) < 2:
        return tuples
    groups: dict[str, list[tuple[str, ...]]] = {}
    for one in tuples:
        groups.setdefault(one[depth], []).append(one)
    ranked = [
        ((2 * i + 1) / (2 * len(group)), number, one)
        for number, group in enumerate(groups.values())
        for i, one in enumerate(_spread(group, depth + 1))
    ]
    return [one for _, _, one in sorted(ranked)]
