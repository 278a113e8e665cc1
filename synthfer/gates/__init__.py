"""Gates: each scores pictures and may reject some, with a reason. A new gate is one new module here.

A gate module holds a dataclass `Config` (its options) and `build(config) -> Gate`. It is found by its module name; a
dotted name (`my_package.my_gate`) names one outside this package. A rejected row is committed with its picture, its
scores and the reason; nothing is dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from synthfer.generators import Faces, GeneratedImage
from synthfer.registry import Registry
from synthfer.sample import Row
from synthfer.schema import Choice


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says of one picture: numbers to keep with the sample, by name, and why it is rejected (None: not)."""

    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None


class Gate(Protocol):
    """Scores pictures and rejects some. A verdict is a function of the row, its faces and its picture alone.

    Used where the module has them: `NEEDS_FACES`, true for a gate that compares pictures with the faces that they were
    made from and so makes no sense for a plan of prompts; and `DEFAULT`, true for one that is on unless a config
    turns it off.
    """

    def check(self, rows: Sequence[Row], faces: Sequence[Faces], images: Sequence[GeneratedImage]) -> Sequence[Verdict]:
        """One verdict per picture, in order.

        `faces` has what each row was made from, which may be nothing; it is empty for a plan without faces.
        """
        ...

    def producer(self) -> dict[str, Any]:
        """What the scores and bounds are, as JSON: options that matter, the weights' sha256. Part of the spec."""
        ...


_MEMBERS = Registry("gate", __name__, __path__, shared=("totals",))
names, module = _MEMBERS.names, _MEMBERS.module


def build(name: str, **options: Any) -> Gate:
    """A ready gate."""
    member = module(name)
    gate: Gate = member.build(member.Config(**options))
    return gate


def needs_faces(name: str) -> bool:
    """Whether a gate compares pictures with the faces that they were made from."""
    return bool(getattr(module(name), "NEEDS_FACES", False))


def defaults(with_faces: bool) -> list[str]:
    """The gates that are on unless a config turns them off, for plans with faces or without."""
    return [
        name for name in names() if getattr(module(name), "DEFAULT", False) and (with_faces or not needs_faces(name))
    ]


class GateChain:
    """All gates of a job as one gate. Every gate sees every picture, so the order of the gates changes nothing."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        """`ConfigError` where a gate lacks what its options name, such as a checkpoint."""
        ordered = sorted(choices, key=lambda choice: choice.name)
        self._gates: dict[str, Gate] = {choice.name: module(choice.name).build(choice.options) for choice in ordered}

    def check(self, rows: Sequence[Row], faces: Sequence[Faces], images: Sequence[GeneratedImage]) -> list[Verdict]:
        """The scores of all gates for each picture, and all reasons in the order of the gates' names."""
        verdicts: list[Sequence[Verdict]] = [gate.check(rows, faces, images) for gate in self._gates.values()]
        return [self._merged(of_one) for of_one in zip(*verdicts, strict=True)] or [Verdict()] * len(rows)

    def _merged(self, verdicts: Sequence[Verdict]) -> Verdict:
        scores: dict[str, float] = {}
        for name, verdict in zip(self._gates, verdicts, strict=True):
            if doubled := scores.keys() & verdict.scores.keys():
                raise ValueError(f"gate {name} gives a score that another gate gives: {', '.join(sorted(doubled))}")
            scores |= verdict.scores
        return Verdict(scores, "; ".join(verdict.reason for verdict in verdicts if verdict.reason) or None)

    def producer(self) -> dict[str, Any]:
        """What the gates add to the producer in a dataset's spec; nothing where there are none.

        The gate of edits stands under `gate`, as in datasets from before gates had names; others stand under `gates`.
        """
        recorded = {name: gate.producer() for name, gate in self._gates.items()}
        edits = {"gate": recorded.pop("edits")} if "edits" in recorded else {}
        return edits | ({"gates": recorded} if recorded else {})
