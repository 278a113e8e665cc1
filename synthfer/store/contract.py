"""`_dataset.json`, the contract of a dataset: format version, spec and its sha256, totals, what the store is worth."""

import json
from dataclasses import dataclass
from typing import Any

import synthfer
from synthfer.documents import MAX_JSON_BYTES, parse, read_json
from synthfer.schema import REQUIRED, option
from synthfer.store.objects import ConditionalCreate, ObjectStore, read_object
from synthfer.store.spec import FORMATS, Spec

CONTRACT = "_dataset.json"


@dataclass(frozen=True, kw_only=True)
class _Totals:
    rows: int = option(REQUIRED, "", low=1)
    units: int = option(REQUIRED, "", low=1)


@dataclass(frozen=True, kw_only=True)
class _StoreFacts:
    conditional_create: str = option(REQUIRED, "", choices=("atomic", "advisory", "none"))


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What `_dataset.json` holds; `spec` is checked by `Spec.from_json`."""

    format: str = option(REQUIRED, "the version of the files", choices=FORMATS)
    spec_sha256: str = option(REQUIRED, "sha256 of the spec")
    totals: _Totals = option(REQUIRED, "rows and units")
    store: _StoreFacts = option(REQUIRED, "what the store keeps")
    created_by: str = option(REQUIRED, "the version of synthfer")
    spec: dict[str, Any] = option(REQUIRED, "plan, producer, image format, rows and unit size")


def write_contract(spec: Spec, conditional_create: ConditionalCreate) -> bytes:
    """The bytes of a new dataset's contract."""
    return json.dumps(
        {
            "format": spec.format,
            "spec_sha256": spec.sha256,
            "totals": {"rows": spec.rows, "units": spec.units},
            "store": {"conditional_create": conditional_create},
            "created_by": f"synthfer {synthfer.__version__}",
            "spec": spec.to_json(),
        },
        indent=1,
    ).encode()


def read_contract(store: ObjectStore) -> tuple[Spec, ConditionalCreate]:
    """The spec of the dataset in a store, and what its conditional create is worth.

    `FileNotFoundError`: there is none; `ValueError`: it is of another version, edited, or no contract at all.
    """
    where = f"{store.uri}/{CONTRACT}"
    try:
        value = read_json(read_object(store, CONTRACT, MAX_JSON_BYTES), where)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no dataset at {store.uri} ({CONTRACT} is missing)") from error
    version = value.get("format") if isinstance(value, dict) else None
    if isinstance(version, str) and version not in FORMATS:
        known = " and ".join(map(repr, FORMATS))
        raise ValueError(f"{where} has format {version[:80]!r}; this version of synthfer knows {known}.")
    contract = parse(value, where, Contract)
    try:
        spec = Spec.from_json(contract.spec, contract.format)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if spec.sha256 != contract.spec_sha256:
        raise ValueError(f"{where} was edited: its spec no longer has the sha256 that it states. Restore the file.")
    if (contract.totals.rows, contract.totals.units) != (spec.rows, spec.units):
        raise ValueError(f"{where} was edited: its totals are not those of its spec. Restore the file.")
    return spec, contract.store.conditional_create  # type: ignore[return-value]
