"""The training data of an experiment: opened once, with all its mistakes reported before anything is started.

Rows come from datasets and views, each under a name; only their metadata is read here, never a row of split test. Every
row has a role (validation.py): train, val, or left out because it is related to a validation row. Reading
order is sources as given, then their datasets, then plan order; pixels.py reads the pictures in the same order.
"""

import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.expressions import EXPRESSIONS
from synthfer.sample import LINEAGE, SPLITS
from synthfer.schema import ConfigError
from synthfer.store.dataset_ref import DatasetRef, UnitRange, open_ref, unit_ranges
from synthfer.store.view import View
from synthfer.suggest import nearest
from synthfer.training.batch_sampler import quotas
from synthfer.training.settings import CUT, DataConfig
from synthfer.training.validation import ROLES, roles

log = logging.getLogger(__name__)

_COLUMNS = ("sample_id", "label", "label_probs", "source", "split", *LINEAGE, "pixels_hash")
_PHOTOGRAPHS = "digitalCapture"
_PAIR = re.compile(rf"[^:\s][^:]*:({'|'.join(SPLITS)})")


@dataclass(frozen=True)
class Source:
    """A dataset or view under the name that it has in the config.

    `splits` are those that are read of it; `ancestors` are the "collection:split"s that its generators or teachers were
    trained on.
    """

    name: str
    dataset_ref: DatasetRef
    synthetic: bool
    splits: tuple[str, ...]
    ancestors: tuple[str, ...]


@dataclass(frozen=True)
class Data:
    """All training and validation rows. It pickles, and holds no picture.

    `sources` are those of `data=`, in that order; `validation` is that of `validation=`, if any.

    `rows`, in reading order: sample_id, label (int64 0..6; the most probable where only label_probs are there),
    label_probs, source (the collection), split, `LINEAGE`, pixels_hash, weight (float64, a view's, else
    1), name (int64 index into `sources`, -1 for rows of `validation`), role (`validation.ROLES`), part (int64 index
    into `parts`) and place (int64, which of the part's rows it is, counting accepted rows of the source's splits).

    Each of `parts` is one dataset of one source, seen through its view.
    """

    sources: tuple[Source, ...]
    validation: Source | None
    parts: tuple[UnitRange, ...]
    rows: pa.Table

    def numbers(self, role: str) -> np.ndarray:
        """The row numbers of a role, int64 (k,), ascending."""
        return np.flatnonzero(pc.equal(self.rows["role"], role).to_numpy())

    def count(self, role: str) -> int:
        """How many rows have a role."""
        return len(self.numbers(role))

    @cached_property
    def labels(self) -> np.ndarray:
        """Expression indices, int64 (n,)."""
        return self.rows["label"].to_numpy()

    @cached_property
    def names(self) -> np.ndarray:
        """Which of `sources` each row is of, int64 (n,), -1 for rows of `validation`."""
        return self.rows["name"].to_numpy()

    def splits_of(self, part: int) -> tuple[str, ...]:
        """The splits that are read of one of `parts`."""
        first = pc.index(self.rows["part"], part).as_py()
        return self._source(self.names[first]).splits

    def _source(self, name: int) -> Source:
        source = self.validation if name < 0 else self.sources[name]
        assert source is not None
        return source

    def describe(self) -> dict[str, Any]:
        """JSON: `sources` and `validation` (or null), each with its hash and its rows.

        Of each: name, uri, hash, view (bool), synthetic, rows (role to expression to number), collections (role to
        "collection:split"s) and trained_on, the collections of its training rows and its ancestors.
        """
        return {
            "sources": [self._described(number) for number in range(len(self.sources))],
            "validation": None if self.validation is None else self._described(-1),
        }

    def _described(self, name: int) -> dict[str, Any]:
        source = self._source(name)
        mine = self.rows.filter(pa.array(self.names == name))
        by_role = {role: mine.filter(pc.equal(mine["role"], role)) for role in ROLES}
        collections = {role: _pairs(rows) for role, rows in by_role.items()}
        return {
            "name": source.name,
            "uri": source.dataset_ref.uri,
            "hash": source.dataset_ref.hash,
            "view": source.dataset_ref.view is not None,
            "synthetic": source.synthetic,
            "rows": {role: dict(zip(EXPRESSIONS, _counts(rows), strict=True)) for role, rows in by_role.items()},
            "collections": collections,
            "trained_on": sorted({*collections["train"], *source.ancestors}),
        }


def open_data(config: DataConfig, every_class: bool = True) -> Data:
    """The data of a training config, each row with its role; warns of rows that are left out, with their number.

    Split test is never read. Split val of the real data is validation data (of all, where all are synthetic), unless
    `validation` or `splits` say otherwise; where there is none, `validation_share` is cut off. `ancestors` are those
    of the synthetic data, of all data where none is synthetic. `ConfigError` with all that is wrong; that an expression
    has no training row is wrong where `every_class` is needed.
    """
    problems = [*_wrong_names(config), *_wrong_splits(config), *_wrong_mix(config)]
    problems += [f"ancestors: {fault}" for fault in _wrong_pairs(config.ancestors)]
    opened = {name: ref for name, uri in config.data.items() if (ref := _opened(f"data.{name}", uri, problems))}
    held = _opened("validation", config.validation, problems) if config.validation not in (None, CUT) else None
    sources = _sources(config, opened, problems)
    validation = None if held is None else _validation(held, problems)
    if problems:
        raise ConfigError(*problems)
    read = {number: _read(source, f"data.{source.name}", problems) for number, source in enumerate(sources)}
    if validation is not None:
        read[-1] = _preferring_val(_read(validation, "validation", problems))
    if problems:
        raise ConfigError(*problems)
    data = _joined(config, tuple(sources), validation, read)
    missing = _missing(config, data)
    if unusable := [*_unusable(data), *(missing if every_class else [])]:
        raise ConfigError(*unusable)
    for warning in missing:
        log.warning("%s", warning)
    _warn(data)
    return data


def _wrong_names(config: DataConfig) -> Iterator[str]:
    if not config.data:
        yield "data is empty: name at least one dataset or view, as data.rafdb=out/rafdb"
    for key, names in (("mix", config.mix), ("synthetic", config.synthetic or ())):
        for name in names:
            if name not in config.data:
                hint = nearest(name, config.data) or "."
                yield f"{key}: no data is called {name!r}{hint} Names in data: {', '.join(config.data)}"


def _wrong_splits(config: DataConfig) -> Iterator[str]:
    if not config.splits:
        yield "splits is empty: name what is trained on, as splits=[train]"
    if "test" in config.splits:
        yield "splits: training does not open the split test; leave it out and evaluate on it once, at the end"


def _wrong_mix(config: DataConfig) -> Iterator[str]:
    if not config.mix:
        return
    if unnamed := [name for name in config.data if name not in config.mix]:
        yield f"mix gives no share to {', '.join(unnamed)}: give one, 0 to leave it out"
    try:
        quotas(list(config.mix.values()), config.batch)
    except ValueError as error:
        yield f"mix {config.mix}: {error}"


def _wrong_pairs(pairs: Any) -> Iterator[str]:
    if not isinstance(pairs, (list, tuple)):
        yield f"{pairs!r} is no list"
        return
    for pair in pairs:
        if not isinstance(pair, str) or not _PAIR.fullmatch(pair):
            yield f"{pair!r} is not of the form collection:split, as rafdb:train; splits are {', '.join(SPLITS)}"


def _opened(key: str, uri: str, problems: list[str]) -> DatasetRef | None:
    """The dataset or view, or None where it is not there or not whole."""
    try:
        return open_ref(uri)
    except (ValueError, FileNotFoundError) as error:
        problems.append(f"{key}: {error}")
        return None


def _sources(config: DataConfig, opened: Mapping[str, DatasetRef], problems: list[str]) -> list[Source]:
    """What is trained on, and the splits that are read of it: val, too, where it serves as validation data."""
    synthetic = {name: _is_synthetic(config, name, ref, problems) for name, ref in opened.items()}
    all_alike, sources = len(set(synthetic.values())) < 2, []
    for name, ref in opened.items():
        gives_val = config.validation is None and (all_alike or not synthetic[name])
        splits = sorted({*config.splits, *(["val"] if gives_val else [])})
        given = config.ancestors if all_alike or synthetic[name] else []
        ancestors = tuple(sorted({*given, *_declared(ref, problems)}))
        sources.append(Source(name, ref, synthetic[name], tuple(splits), ancestors))
    return sources


def _validation(held: DatasetRef, problems: list[str]) -> Source:
    ancestors = tuple(sorted(_declared(held, problems)))
    return Source("validation", held, _kinds(held) == {True}, ("train", "val"), ancestors)


def _is_synthetic(config: DataConfig, name: str, ref: DatasetRef, problems: list[str]) -> bool:
    """As the config says, else as the datasets say."""
    if config.synthetic is not None:
        return name in config.synthetic
    kinds = _kinds(ref)
    if len(kinds) > 1:
        problems.append(f"data.{name}: the view shows real and synthetic datasets; make one view of each, or say by "
                        "synthetic=[…] which names are synthetic")  # fmt: skip
    return True in kinds


def _kinds(ref: DatasetRef) -> set[bool]:
    """Which of real (False) and synthetic (True) the datasets are: photographs are real, what a program drew is not."""
    return {dataset.spec.producer.get("source_type") != _PHOTOGRAPHS for dataset in ref.datasets}


def _declared(ref: DatasetRef, problems: list[str]) -> set[str]:
    """The collections that the generators or teachers of the datasets and of the view were trained on."""
    lists = {dataset.uri: dataset.spec.producer.get("trained_on") for dataset in ref.datasets}
    if ref.view is not None:
        lists[ref.view] = View(ref.view).made_by.get("trained_on")
    declared: set[str] = set()
    for uri, pairs in lists.items():
        if faults := list(_wrong_pairs(pairs or [])):
            problems += [f"{uri}: trained_on: {fault}" for fault in faults]
        else:
            declared |= set(pairs or [])
    return declared


@dataclass(frozen=True)
class _Read:
    """The labelled rows of a source, with `part` an index into its own `parts`."""

    parts: tuple[UnitRange, ...]
    rows: pa.Table


def _read(source: Source, key: str, problems: list[str]) -> _Read:
    ranges = tuple(unit_ranges([source.dataset_ref], sys.maxsize))
    rows = pa.concat_tables([_of_part(part, number, source.splits) for number, part in enumerate(ranges)])
    labelled = rows.filter(pc.is_valid(rows["label"]))
    weights = rows["weight"].to_numpy()
    if not (np.isfinite(weights) & (weights >= 0)).all():
        problems.append(
            f"{key}: the view {source.dataset_ref.uri} has weights that are not numbers >= 0; make it again"
        )
    if not rows.num_rows:
        problems.append(f"{key}: {source.dataset_ref.uri} has no accepted row of split {' or '.join(source.splits)}")
    elif not labelled.num_rows:
        problems.append(
            f"{key}: none of the {rows.num_rows:,} accepted rows of {source.dataset_ref.uri} has a label or "
            "label_probs; label them first, or leave it out"
        )
    elif missing := rows.num_rows - labelled.num_rows:
        log.warning("%s: %s of %s rows have no label and are left out", key, f"{missing:,}", f"{rows.num_rows:,}")
    return _Read(ranges, labelled)


def _preferring_val(read: _Read) -> _Read:
    """The rows of split val alone, where there are any."""
    val = pc.equal(read.rows["split"], "val")
    return replace(read, rows=read.rows.filter(val)) if pc.any(val).as_py() else read


def _of_part(part: UnitRange, number: int, splits: Sequence[str]) -> pa.Table:
    """The accepted rows of a part, with label, weight, part and place."""
    rows = part.rows(_COLUMNS, splits)
    weight = pa.array(np.ones(rows.num_rows))
    if part.view is not None:
        selection = View(part.view).selection
        place = pc.index_in(rows["sample_id"], value_set=selection["sample_id"].combine_chunks())
        weight = pc.fill_null(selection["weight"].take(place), 1.0)
    rows = rows.set_column(1, "label", _labels(rows, part.dataset)).append_column("weight", weight)
    rows = rows.append_column("part", pa.array(np.full(rows.num_rows, number, np.int64)))
    return rows.append_column("place", pa.array(np.arange(rows.num_rows)))


def _labels(rows: pa.Table, uri: str) -> pa.ChunkedArray:
    """Labels, from label_probs where a row has only these; null where it has neither."""
    soft, classes = rows["label_probs"].combine_chunks(), len(EXPRESSIONS)
    probs = soft.flatten().to_numpy(zero_copy_only=False)
    whole = not pc.any(pc.not_equal(pc.list_value_length(soft), classes)).as_py()
    if not (whole and (probs >= 0).all() and (probs.reshape(-1, classes).sum(1) > 0).all()):
        raise ConfigError(f"{uri}: a row's label_probs are not {classes} numbers of at least 0, one above 0")
    best = np.full(rows.num_rows, -1)
    there = pc.is_valid(soft).to_numpy(zero_copy_only=False)
    best[there] = probs.reshape(-1, classes).argmax(1)
    return pc.coalesce(rows["label"], pa.array(best, mask=~there))


def _joined(
    config: DataConfig, sources: tuple[Source, ...], validation: Source | None, read: Mapping[int, _Read]
) -> Data:
    """All rows with their names and roles."""
    tables, all_parts = [], list[UnitRange]()
    for number, one in read.items():
        names = pa.array(np.full(one.rows.num_rows, number, np.int64))
        part = pc.add(one.rows["part"], len(all_parts))
        at = one.rows.schema.get_field_index("part")
        tables.append(one.rows.set_column(at, "part", part).append_column("name", names))
        all_parts += one.parts
    rows = pa.concat_tables(tables)
    names = rows["name"].to_numpy()
    held_out = names < 0
    if validation is None and "val" not in config.splits:
        held_out = pc.equal(rows["split"], "val").to_numpy()
    synthetic = np.array([source.synthetic for source in sources])[names] & (names >= 0)
    role = pa.array(ROLES).take(pa.array(roles(rows, synthetic, held_out, config.validation_share)))
    return Data(sources, validation, tuple(all_parts), rows.append_column("role", role))


def _twice(data: Data) -> Iterator[str]:
    """Pairs of sources with the same samples: equal ids alone are those of one plan that two generators made."""
    mine = data.rows.select(["sample_id", "pixels_hash", "name"]).filter(pc.greater_equal(data.rows["name"], 0))
    same = mine.group_by(["sample_id", "pixels_hash"]).aggregate([("name", "min"), ("name", "max")])
    pairs = np.stack([same["name_min"].to_numpy(), same["name_max"].to_numpy()], axis=1)
    doubled, counts = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0, return_counts=True)
    for (one, other), count in zip(doubled.tolist(), counts.tolist(), strict=True):
        names = f"data.{data.sources[one].name} and data.{data.sources[other].name}"
        yield f"{names} have {count:,} samples in common, which would count twice: leave them out of one"


def _unusable(data: Data) -> Iterator[str]:
    """What the rows lack, or have twice."""
    yield from _twice(data)
    train, val = data.numbers("train"), data.numbers("val")
    if not len(val):
        yield "validation: all rows descend from each other, so that no part can be cut off; give data by validation=…"
    for number, source in enumerate(data.sources):
        if not (data.names[train] == number).any():
            yield (f"data.{source.name}: no row is left to train on, as all are validation data or tied to it by "
                   "sample, original, identity or pixels; choose other data by validation=…")  # fmt: skip


def _missing(config: DataConfig, data: Data) -> list[str]:
    """That expressions have no training row, if so."""
    train = data.numbers("train")
    used = train[np.array([config.mix.get(source.name, 1.0) > 0 for source in data.sources])[data.names[train]]]
    missing = [EXPRESSIONS[i] for i in np.flatnonzero(np.bincount(data.labels[used], minlength=len(EXPRESSIONS)) == 0)]
    message = (f"no training row shows {', '.join(missing)}: add data that does (jobs/generate.py makes it with "
            "plan.per_expression), or look at `splits` and `mix`")  # fmt: skip
    return [message] if missing else []


def _warn(data: Data) -> None:
    for number, source in enumerate(data.sources):
        out = np.count_nonzero(data.names[data.numbers("out")] == number)
        if out:
            log.warning("data.%s: %s rows share a sample, original, identity or pixels with validation rows and are "
                        "not trained on", source.name, f"{out:,}")  # fmt: skip
    absent = np.flatnonzero(np.bincount(data.labels[data.numbers("val")], minlength=len(EXPRESSIONS)) == 0)
    if len(absent):
        log.warning("validation data has no row of %s: the best step is chosen without them",
                    ", ".join(EXPRESSIONS[i] for i in absent))  # fmt: skip


def _counts(rows: pa.Table) -> list[int]:
    counts: list[int] = np.bincount(rows["label"].to_numpy(), minlength=len(EXPRESSIONS)).tolist()
    return counts


def _pairs(rows: pa.Table) -> list[str]:
    """The "collection:split"s of some rows, sorted."""
    joined = pc.binary_join_element_wise(rows["source"], rows["split"], ":")
    return sorted(pc.unique(joined.drop_null()).to_pylist())
