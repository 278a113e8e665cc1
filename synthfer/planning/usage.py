"""What a dry run says of a plan of faces: how often each is used, and the attributes of what is made."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from synthfer.planning.faces import FaceTable
from synthfer.planning.plan import Plan


def usage(faces: FaceTable, uses: Mapping[str, tuple[int, int, int]]) -> dict[str, Any]:
    """JSON: how many faces and identities there are, and of each class of `uses` its faces and how often each is used.

    `uses`: class name -> (faces, least, most uses of one).
    """
    return {
        "faces": len(faces),
        "identities": int(faces.identities().max(initial=-1) + 1),
        "of_real_persons": faces.real,
        "uses": {name: {"faces": count, "each": [least, most]} for name, (count, least, most) in uses.items()},
    }


def counted_attributes(plan: Plan, limit: int) -> dict[str, Any]:
    """JSON: `attributes`, rows per value among the first `counted` rows, which are all if they are at most `limit`."""
    counted = plan.rows(range(min(limit, len(plan))))
    tally: dict[str, Counter[str]] = {}
    for row in counted:
        for name, value in row.attributes.items():
            tally.setdefault(name, Counter())[value] += 1
    return {"counted": len(counted), "attributes": {name: dict(sorted(found.items())) for name, found in tally.items()}}
