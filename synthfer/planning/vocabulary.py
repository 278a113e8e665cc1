"""Vocabularies: the expressions and attributes that a face may have, and the sentences that ask for them, as YAML.

A preset has `templates` (sentences with slots), `expressions` (a phrase for each of the seven), `attributes`
(each a map of recorded name to phrase, or a list of phrases that are their own names) and perhaps `negative`
(one negative prompt) and `description`. An attribute whose values depend on others has `by`, the names it
depends on, and `values`, nested in that order. presets/portrait.yaml shows all of it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from reprlib import Repr
from string import Formatter
from typing import Any

from synthfer.documents import MAX_YAML_BYTES, DocumentError, read_yaml
from synthfer.expressions import EXPRESSIONS
from synthfer.files import read_file
from synthfer.sample import ATTRIBUTES
from synthfer.schema import ConfigError
from synthfer.suggest import nearest

MAX_COMBINATIONS = 1_000_000
"""Of values of attributes: as many cells as a plan could give one row each."""
_FIELDS = ("description", "templates", "negative", "expressions", "attributes")
_PRESETS = files("synthfer.planning") / "presets"

Assignment = dict[str, str]


@dataclass(frozen=True, slots=True)
class Attribute:
    """What one attribute can be: for each tuple of values of the names in `by`, recorded name -> phrase."""

    by: tuple[str, ...]
    groups: Mapping[tuple[str, ...], Mapping[str, str]]

    @property
    def values(self) -> list[str]:
        """Every recorded name, sorted."""
        return sorted({name for group in self.groups.values() for name in group})


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A checked preset. `attributes` stand in an order in which each follows those that it depends on."""

    templates: tuple[str, ...]
    negative: str | None
    expressions: Mapping[str, str]
    attributes: Mapping[str, Attribute]

    def phrases(self, cell: Assignment) -> dict[str, str]:
        """The phrase for each slot of a template: `cell` names the expression and a value of every attribute."""
        phrases = {"expression": self.expressions[cell["expression"]]}
        for name, attribute in self.attributes.items():
            phrases[name] = attribute.groups[tuple(cell[parent] for parent in attribute.by)][cell[name]]
        return phrases

    def document(self) -> dict[str, Any]:
        """The vocabulary as plain JSON, equal for equal vocabularies: `from_document` reads it."""
        return {
            "templates": list(self.templates),
            "negative": self.negative,
            "expressions": dict(self.expressions),
            "attributes": {
                name: {"by": list(attribute.by), "values": _nested(attribute.groups)}
                if attribute.by
                else dict(attribute.groups[()])
                for name, attribute in self.attributes.items()
            },
        }

    def restricted(self, wanted: Mapping[str, list[str] | str]) -> "Vocabulary":
        """Only the wanted values of some attributes; `ConfigError` for what is unknown or leaves nothing."""
        keep = {name: _wanted(self.attributes, name, values) for name, values in wanted.items()}
        attributes: dict[str, Attribute] = {}
        for name, attribute in self.attributes.items():
            groups = {}
            for key in parent_values(attributes, attribute.by):
                group = attribute.groups[key]
                groups[key] = {value: group[value] for value in group if value in keep.get(name, group)}
                if not groups[key]:
                    where = ", ".join(map("=".join, zip(attribute.by, key, strict=True)))
                    raise ConfigError(
                        f"plan.attributes.{name}: there is no {' or '.join(sorted(keep[name]))} for {where}; "
                        f"add one of {', '.join(group)}, or restrict what it depends on"
                    )
            attributes[name] = replace(attribute, groups=groups)
        return replace(self, attributes=attributes)


def presets() -> list[str]:
    """The names of the presets that ship."""
    return sorted(Path(entry.name).stem for entry in _PRESETS.iterdir() if entry.name.endswith(".yaml"))


def load_preset(preset: str) -> Vocabulary:
    """The vocabulary of a preset that ships, or of a YAML file; `ConfigError` names file and slot."""
    if preset in presets():
        text = (_PRESETS / f"{preset}.yaml").read_bytes()
    elif preset.endswith((".yaml", ".yml")):
        try:
            text = read_file(preset, MAX_YAML_BYTES)
        except (OSError, ValueError) as error:
            raise ConfigError(f"plan.preset={preset}: cannot be read: {error}") from None
    else:
        known = ", ".join(presets())
        raise ConfigError(
            f"plan.preset={preset}: no such preset{nearest(preset, presets())}; there are {known}, "
            "or a path that ends in .yaml"
        )
    try:
        document = read_yaml(text, f"preset {preset}")
    except DocumentError as error:
        raise ConfigError(str(error)) from None
    return from_document(document, preset)


def from_document(document: Any, source: str) -> Vocabulary:
    """The vocabulary of a parsed preset; `source` (a name or a path) and the slot stand in the errors."""
    try:
        return _vocabulary(document)
    except ConfigError as error:
        raise ConfigError(f"preset {source}: {error}") from None


def slots(template: str) -> set[str]:
    """The names in braces of a template; `ConfigError` for stray braces, empty or formatted slots."""
    try:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise ConfigError(f"{error} in {template!r}") from None
    for _, name, form, conversion in fields:
        if not name or form or conversion:
            shown = f"{name or ''}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
            raise ConfigError(f"a slot is a name in braces, such as {{age}}, not {{{shown}}}, in {template!r}")
    return {str(name) for _, name, _, _ in fields}


def render(template: str, phrases: Mapping[str, str]) -> str:
    """The template with a phrase in every slot, its first letter a capital."""
    sentence = template.format_map(phrases)
    return sentence[:1].upper() + sentence[1:]


def ancestors(attributes: Mapping[str, Attribute], names: Iterable[str]) -> set[str]:
    """The names and all that they depend on, `expression` included."""
    needed = set(names)
    for name in reversed([*attributes]):
        if name in needed:
            needed.update(attributes[name].by)
    return needed


def assignments(attributes: Mapping[str, Attribute], names: Iterable[str], expression: str) -> list[Assignment]:
    """Every allowed combination of the named attributes and of those that they depend on."""
    needed = ancestors(attributes, names)
    combinations = [{"expression": expression}]
    for name, attribute in attributes.items():
        if name in needed:
            most = max(map(len, attribute.groups.values()), default=0)
            if len(combinations) * most > MAX_COMBINATIONS:
                raise ConfigError(
                    f"attributes.{name}: more than {MAX_COMBINATIONS:,} combinations of values: use fewer"
                )
            combinations = [
                {**cell, name: value}
                for cell in combinations
                for value in attribute.groups[tuple(cell[parent] for parent in attribute.by)]
            ]
    return combinations


def parent_values(
    attributes: Mapping[str, Attribute], by: Sequence[str], expressions: Iterable[str] = EXPRESSIONS
) -> list[tuple[str, ...]]:
    """The combinations of values of the names in `by` that can occur, without repeats."""
    cells = (cell for expression in expressions for cell in assignments(attributes, by, expression))
    return list(dict.fromkeys(tuple(cell[parent] for parent in by) for cell in cells))


def _vocabulary(document: Any) -> Vocabulary:
    fields = _map(document, "top level")
    for name in fields:
        if name not in _FIELDS:
            raise ConfigError(f"unknown field {name!r}{nearest(name, _FIELDS)}; there are {', '.join(_FIELDS)}")
    for name in ("templates", "expressions"):
        if not fields.get(name):
            raise ConfigError(f"{name}: missing or empty")
    if not isinstance(fields["templates"], list):
        raise ConfigError(f"templates: expected a list of sentences, not {_shown(fields['templates'])}")
    attributes = _attributes(fields.get("attributes") or {})
    negative = fields.get("negative")
    vocabulary = Vocabulary(
        templates=tuple(_text(text, f"templates[{i}]") for i, text in enumerate(fields["templates"])),
        negative=None if negative is None else _text(negative, "negative"),
        expressions=_expressions(fields["expressions"]),
        attributes=attributes,
    )
    for i, template in enumerate(vocabulary.templates):
        _check_template(template, f"templates[{i}]", {"expression", *attributes})
    return vocabulary


def _check_template(template: str, slot: str, known: set[str]) -> None:
    try:
        used = slots(template)
    except ConfigError as error:
        raise ConfigError(f"{slot}: {error}") from None
    for name in sorted(used - known):
        listed = ", ".join(sorted(known))
        raise ConfigError(f"{slot}: unknown slot {{{name}}}{nearest(name, known)}; there are {listed}")
    for name in sorted(known - used):
        raise ConfigError(f"{slot}: no slot {{{name}}}: add it, or its prompts would leave out what each row records")


def _expressions(value: Any) -> dict[str, str]:
    phrases = _phrases(value, "expressions")
    for name in phrases:
        if name not in EXPRESSIONS:
            raise ConfigError(f"expressions.{name}: not an expression{nearest(name, EXPRESSIONS)}")
    for name in EXPRESSIONS:
        if name not in phrases:
            raise ConfigError(f"expressions.{name}: missing; all seven are needed")
    return {name: phrases[name] for name in EXPRESSIONS}


def _attributes(value: Any) -> dict[str, Attribute]:
    """Reads all attributes, each after those that it depends on, else in alphabetical order."""
    waiting = {name: _attribute(name, entry) for name, entry in sorted(_map(value, "attributes").items())}
    for name, attribute in waiting.items():
        for parent in attribute.by:
            if parent not in waiting and parent != "expression":
                hint = nearest(parent, [*waiting, "expression"])
                raise ConfigError(f"attributes.{name}.by: there is no attribute {parent!r}{hint}")
    ordered: dict[str, Attribute] = {}
    while waiting:
        ready = [name for name, attribute in waiting.items() if not waiting.keys() & {*attribute.by}]
        if not ready:
            raise ConfigError(f"attributes: {', '.join(waiting)} depend on one another in a circle")
        attribute = waiting.pop(ready[0])
        _check_groups(ready[0], attribute, parent_values(ordered, attribute.by))
        ordered[ready[0]] = attribute
    return ordered


def _attribute(name: str, entry: Any) -> Attribute:
    slot = f"attributes.{name}"
    if name not in ATTRIBUTES:
        raise ConfigError(
            f"{slot}: not a recorded attribute{nearest(name, ATTRIBUTES)}; there are {', '.join(ATTRIBUTES)}"
        )
    if not (isinstance(entry, dict) and "by" in entry):
        return Attribute((), {(): _phrases(entry, slot)})
    by = entry["by"]
    if not (isinstance(by, list) and by and all(isinstance(parent, str) for parent in by) and len(set(by)) == len(by)):
        raise ConfigError(f"{slot}.by: expected a list of attribute names, not {_shown(by)}")
    if set(entry) != {"by", "values"}:
        raise ConfigError(f"{slot}: expected by and values, not {', '.join(map(str, entry))}")
    return Attribute(tuple(by), dict(_groups(entry["values"], len(by), f"{slot}.values")))


def _groups(value: Any, depth: int, slot: str) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """The leaves of a nested map: the path of names, and the phrases there."""
    if depth == 0:
        yield (), _phrases(value, slot)
        return
    for name, inner in _map(value, slot).items():
        for path, phrases in _groups(inner, depth - 1, f"{slot}.{name}"):
            yield (name, *path), phrases


def _nested(groups: Mapping[tuple[str, ...], Mapping[str, str]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*path, last), phrases in groups.items():
        branch = tree
        for name in path:
            branch = branch.setdefault(name, {})
        branch[last] = dict(phrases)
    return tree


def _check_groups(name: str, attribute: Attribute, expected: list[tuple[str, ...]]) -> None:
    """An attribute has values for just the combinations that can occur of what it depends on."""
    known_keys = set(expected)
    for key in attribute.groups:
        if key not in known_keys:
            depth = max(d for d in range(len(key)) if any(other[:d] == key[:d] for other in expected))
            known = sorted({other[depth] for other in expected if other[:depth] == key[:depth]})
            raise ConfigError(
                f"attributes.{name}.values.{'.'.join(key[: depth + 1])}: no such {attribute.by[depth]}"
                f"{nearest(key[depth], known)}; there are {', '.join(known)}"
            )
    for key in expected:
        if key not in attribute.groups:
            raise ConfigError(f"attributes.{name}.values.{'.'.join(key)}: missing (by {', '.join(attribute.by)})")


def _wanted(attributes: Mapping[str, Attribute], name: str, values: list[str] | str) -> set[str]:
    if name not in attributes:
        listed = ", ".join(sorted(attributes)) or "none"
        raise ConfigError(
            f"plan.attributes.{name}: not an attribute of this preset{nearest(name, attributes)}; it has {listed}"
        )
    known = attributes[name].values
    wanted = {values} if isinstance(values, str) else set(values)
    if not wanted:
        raise ConfigError(f"plan.attributes.{name}: empty; leave it out for all of {', '.join(known)}")
    for value in sorted(wanted - set(known), key=str):
        raise ConfigError(
            f"plan.attributes.{name}: unknown value {value!r}{nearest(str(value), known)}; there are {', '.join(known)}"
        )
    return wanted


def _map(value: Any, slot: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{slot}: expected a map of names, not {_shown(value)}")
    for name in value:
        _text(name, f"{slot}: name")
    return value


def _phrases(value: Any, slot: str) -> dict[str, str]:
    if not value:
        raise ConfigError(f"{slot}: empty vocabulary")
    pairs = [(text, text) for text in value] if isinstance(value, list) else _map(value, slot).items()
    phrases: dict[str, str] = {}
    known: set[str] = set()
    for name, text in pairs:
        phrase = _text(text, f"{slot}.{name}")
        if "{" in phrase or "}" in phrase:
            raise ConfigError(f"{slot}.{name}: braces are for templates, not for phrases: {phrase!r}")
        if phrase in known:
            raise ConfigError(f"{slot}.{name}: {phrase!r} stands here twice; each value needs words of its own")
        phrases[name] = phrase
        known.add(phrase)
    return phrases


def _shown(value: Any) -> str:
    short = Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)


def _text(value: Any, slot: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(
            f"{slot}: expected text, not {_shown(value)}" + ("" if isinstance(value, str) else "; quote it")
        )
    return " ".join(value.split())
