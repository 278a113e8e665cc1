"""The dataset card: a README.md with the front matter that the Hugging Face hub reads.

What only a person can decide (licences, contact) is marked "to be filled in".
"""

import html
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from synthfer.expressions import EXPRESSIONS
from synthfer.sample import DECISIONS
from synthfer.store.manifest import Manifest
from synthfer.store.shard import hash_covers
from synthfer.store.spec import Spec

README = "README.md"

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
_SYNTHETIC = (
    "**All images are synthetic: they were made by a computer program and show no real person.** Each "
    "file says so in its metadata (IPTC digital source type)."
)
_NONE_ACCEPTED = (
    "**No row is accepted: every one failed or was rejected**, so that there is nothing to learn from here. The column "
    "`reason` says why."
)
_REAL = (
    "**This dataset holds images of real people, or images derived from them.** The rights and the "
    "consent of the sources apply; see their licences."
)
_DERIVED = (
    "**It is derived from the faces of real persons and does not preserve their privacy**: who is shown may be "
    "recognised. Rows with `derived_from_real_identity` name the face that they were made from in `parent_id`."
)


def is_synthetic(producer: Mapping[str, Any]) -> bool:
    """Whether no real face was used: a producer of real, edited or re-labelled faces has `"kind": "real"`."""
    return producer.get("kind", "synthetic") == "synthetic"


def dataset_card(spec: Spec, manifest: Manifest) -> str:
    """README.md of a sealed dataset: Markdown with YAML front matter."""
    synthetic = is_synthetic(spec.producer)
    parts = [
        _front_matter(manifest.rows, synthetic),
        f"# Facial expressions: {manifest.rows:,} samples",
        _SYNTHETIC if synthetic else _REAL,
        *([_DERIVED] if spec.producer.get("derived_from_real_identity") else []),
        *([] if manifest.accepted else [_NONE_ACCEPTED]),
        "## Counts",
        _counts(manifest),
        "## How to load",
        _how_to_load(),
        "## How it was made",
        f"Made with synthfer: {spec.rows:,} rows of a plan in {spec.units:,} shards of up to "
        f"{spec.unit_size:,}. Every row of the plan is here, with its decision and the reason; none was "
        "dropped. The same plan and producer give the same samples.\n\n- manifest_hash: "
        f"`{manifest.manifest_hash}`, over {hash_covers(manifest.format)}\n- spec: `{spec.sha256}`\n"
        f"- producer: `{spec.producer_id}`",
        "### Producer (weights' sha256 included)",
        _json(spec.producer),
        "### Images",
        _json(spec.image),
        "### Plan",
        _json(spec.plan),
        "## Intended use and limits",
        "For research on recognising facial expressions: training, balancing and evaluating classifiers. "
        "The label is the expression that was asked for or annotated, not a feeling that anybody had. "
        "Attributes such as age or ethnicity are prompts or annotations, not facts about people, and "
        "follow the stereotypes of what made them. Not for identifying people, nor for judging the "
        "emotions of persons in work, education or law enforcement.",
        "## Licence",
        _licences(spec.producer),
    ]
    return "\n\n".join(parts) + "\n"


def _licences(producer: Mapping[str, Any]) -> str:
    """The licences that are known, and what only a person can fill in; an imported collection has no model."""
    own, unknown = producer.get("licence"), "*to be filled in*"
    faces = producer.get("faces")
    given = faces.get("licences") if isinstance(faces, dict) else None
    sources = "; ".join(map(str, given if isinstance(given, list) else ())) if "generator" in producer else own
    lines = {
        "Licence of this dataset": None,
        "Licence of the model and its weights": own if "generator" in producer else None,
        "Licences of the sources": sources,
        "Contact": None,
    }
    return "\n".join(f"- {name}: {escaped(value) if value else unknown}" for name, value in lines.items())


def _front_matter(rows: int, synthetic: bool) -> str:
    size = next((name for limit, name in _SIZES if rows < limit), "n>10M")
    tags = ["facial-expression-recognition", *(["synthetic"] if synthetic else [])]
    return "\n".join(
        [
            "---",
            "license: other  # fill in, e.g. cc-by-4.0",
            "license_name: to-be-filled-in",
            "task_categories:",
            "- image-classification",
            "tags:",
            *(f"- {tag}" for tag in tags),
            "size_categories:",
            f"- {size}",
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            "    path: data/train-*.parquet",
            "---",
        ]
    )


def _counts(manifest: Manifest) -> str:
    decisions = [name for name in DECISIONS if any(name in row for row in manifest.counts.values())]
    lines = [f"| expression | {' | '.join(decisions)} | all |", f"|---|{'---:|' * (len(decisions) + 1)}"]
    for name in (*EXPRESSIONS, "none"):
        row = manifest.counts.get(name)
        if row:
            cells = [f"{row.get(decision, 0):,}" for decision in decisions]
            lines.append(f"| {name} | {' | '.join(cells)} | {sum(row.values()):,} |")
    return "\n".join(lines)


def _how_to_load() -> str:
    return """```python
from datasets import load_dataset  # pictures and class names

samples = load_dataset("parquet", data_files="data/train-*.parquet", split="train")
usable = samples.filter(lambda decision: decision == "accepted", input_columns="decision")
```

```python
from synthfer.store import Dataset  # checked against the manifest

for batch in Dataset(".").scan(columns=["sample_id", "label", "image"]):
    ...
```"""


def escaped(value: Any) -> str:
    """A text of unknown origin within a line of Markdown: no mark-up, no HTML, no line break, nothing invisible."""
    text = " ".join(_visible(str(value).replace("\n", " ").replace("\t", " ")).split())
    return _MARKS.sub(r"\\\g<0>", html.escape(text, quote=False))


def _visible(text: str) -> str:
    """The text with control characters, marks of direction and other invisible characters as their numbers."""
    return "".join(_escape(char) if unicodedata.category(char) in _INVISIBLE else char for char in text)


def _escape(char: str) -> str:
    return "".join(f"\\u{unit:04x}" for unit in memoryview(char.encode("utf-16-le", "surrogatepass")).cast("H"))


_MARKS = re.compile(r"[\\`*_\[\]|~#!$]")
# Control and format characters, half surrogates, private ones and those that are not assigned, separators of lines.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _json(value: Any) -> str:
    # A plan or a prompt may hold backquotes; a fence of tildes cannot be closed by them, and JSON has no bare newline.
    # What is invisible is escaped as JSON escapes it, so that the value stays the same.
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    return f"~~~json\n{chr(10).join(map(_visible, text.split(chr(10))))}\n~~~"
