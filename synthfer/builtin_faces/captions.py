"""Captions for drawn faces: a grammar of many wordings, so that a text encoder trained on it follows real prompts.

Every caption names the expression, by an everyday word, by what the face does, or by its facial action units (the names
of the Facial Action Coding System, Ekman & Friesen 1978). Other attributes are named or left out at random; what is
left out is free. Camera, light and background are mentioned and mean nothing, and some captions carry words that no
dictionary has: the encoder must learn to pass over them. The frames of `HELD_OUT` never occur in training.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from synthfer.builtin_faces.caption_words import (
    ACTION_UNITS,
    ADJECTIVES,
    AGE_CLAUSES,
    AGE_WORDS,
    BEARD_WORDS,
    CHATTER,
    CUES,
    DEGREES,
    FEELING,
    FILLERS,
    FRAMES,
    GLASSES_WORDS,
    HAIR_WORDS,
    HELD_OUT,
    INTENSITY_WORDS,
    NEGATIVES,
    NOUNS,
    PERSONS,
    POSE_WORDS,
    RACE_WORDS,
    SHOTS,
    SKIN_WORDS,
    STYLE_CLAUSES,
    UNIT_NUMBERS,
    VISIBLE_WORDS,
)
from synthfer.sources.avatars import AvatarAttributes

# Names that presets use for the same thing; a head that only looks aside is drawn from the front.
_PRESET_NAMES: dict[str, tuple[str, ...]] = {
    "young": ("adult",), "middle-aged": ("adult",), "frontal": ("frontal", "looking-left", "looking-right"),
    "left": ("left", "turned-left"),
    "right": ("right", "turned-right"), "tilted": ("tilted", "tilted-left", "tilted-right"),
}  # fmt: skip


def caption(face: AvatarAttributes, seed: int | str, held_out: bool = False, full: bool = False) -> str:
    """One description of a face, a pure function of its arguments.

    Args:
        held_out: use only the frames kept from training.
        full: name skin, hair and glasses always, rather than at random.
    """
    rng = random.Random(f"{seed}:{held_out}:{full}")
    adjective = _adjective(face, rng)
    frame = rng.choice(HELD_OUT if held_out else FRAMES)
    feeling = rng.choice(FEELING)
    by_face_only = not held_out and "{feeling}" in frame and "{adj}" not in frame and "{noun}" not in frame
    if by_face_only and rng.random() < 0.2:  # by what the face does alone
        feeling = "with " + (_cue(face, rng) if rng.random() < 0.6 else _units(face, rng))
        details = _details(face, rng, full)
    else:
        clue = [_cue(face, rng)] * (rng.random() < 0.45) + [_units(face, rng)] * (rng.random() < 0.12)
        details = _details(face, rng, full) + clue
    rng.shuffle(details)
    words = {"adj": adjective, "a_adj": _article(adjective), "noun": _noun(face, rng), "shot": rng.choice(SHOTS),
             "strength": rng.choice(INTENSITY_WORDS[face.intensity])}  # fmt: skip
    bare = _subject(face, rng)
    text = frame.format(subject=_article(bare), subject_bare=bare, feeling=feeling.format(**words),
                        details=", ".join(details) or rng.choice(FILLERS), filler=_filler(rng), **words)  # fmt: skip
    return _tidy(_add_noise_words(text, rng) if not held_out and rng.random() < 0.25 else text)


def preset_caption(face: AvatarAttributes, preset: Mapping[str, Any], seed: int | str) -> str | None:
    """The face in the words of a planning preset, or None where none of its traits is true of the face.

    Args:
        preset: the loaded YAML: `templates`, `expressions`, and `attributes` whose values map names to phrases, or
            hold `by` (names of earlier attributes) and nested `values`.
    """
    rng = random.Random(f"preset:{seed}")
    names_of = {
        "gender": (face.gender,),
        "age": (face.age, *_PRESET_NAMES.get(face.age, ())),
        "pose": _PRESET_NAMES[face.pose],
        "race": (face.race.replace(" ", "-"), "asian" if "asian" in face.race else ""),
    }
    names = {"expression": face.expression}
    phrases = {"expression": preset["expressions"][face.expression]}
    for name, spec in preset["attributes"].items():
        values = spec.get("values", spec) if isinstance(spec, Mapping) else spec
        for key in spec.get("by", ()) if isinstance(spec, Mapping) else ():
            values = values[names[key]]
        pairs = values.items() if isinstance(values, Mapping) else [(v, v) for v in values]
        options = [
            (k, p) for k, p in pairs if p and (k in names_of[name] if name in names_of else _is_true(k, p, face))
        ]
        if not options:
            return None
        names[name], phrases[name] = rng.choice(options)
    return rng.choice(preset["templates"]).format(**phrases)


def preset_phrases(preset: Mapping[str, Any]) -> list[str]:
    """Every string of a preset, for the tokenizer's word list."""
    return list(_strings({k: preset.get(k) for k in ("templates", "negative", "expressions", "attributes")}))


def empty_captions(number: int, negatives: Sequence[str] = (), seed: int = 0) -> list[str]:
    """Texts that describe nothing: every other one empty, the others negative prompts, `negatives` among them."""
    rng = random.Random(seed)
    random_ones = [", ".join(rng.sample(NEGATIVES, rng.randint(1, 9))) for _ in range(number // 4)]
    given = [negatives[i % len(negatives)] for i in range(number // 4)] if negatives else random_ones
    return [*random_ones, *given, *[""] * (number - len(random_ones) - len(given))]


def vocabulary(more: Iterable[str] = ()) -> list[str]:
    """The sorted words of the grammar and of `more` texts; held-out frames are left out on purpose."""
    tables = (ADJECTIVES, NOUNS, CUES, ACTION_UNITS, DEGREES, INTENSITY_WORDS, PERSONS, AGE_WORDS, AGE_CLAUSES,
              RACE_WORDS,
              SKIN_WORDS, HAIR_WORDS, STYLE_CLAUSES, GLASSES_WORDS, BEARD_WORDS, POSE_WORDS, SHOTS, FILLERS, CHATTER,
              NEGATIVES, FEELING, FRAMES, VISIBLE_WORDS, list(more),
              ["skin", "complexion", "au", "skinned"])  # fmt: skip
    text = " ".join(s for table in tables for s in _strings(table))
    return sorted(set(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", text.lower()))))


def _is_true(name: str, phrase: str, face: AvatarAttributes) -> bool:
    """Whether a preset's cue (by its strength) or trait (by its words) holds for a face."""
    if name in ("slight", "strong"):
        return face.intensity == "clear" or (name == "slight") == (face.intensity == "slight")
    words, hair = set(re.findall(r"[a-z-]+", phrase)), face.hair_style
    colours = [c for c in HAIR_WORDS if c in words]
    checks = [face.hair_color in colours] if colours and not words & {"streaks", "highlights"} else []
    checks += [face.glasses is not None] * ("glasses" in words) + [hair == "bald"] * ("bald" in words)
    checks += [face.facial_hair is None] * ("clean-shaven" in words)
    if "beard" in words:
        allowed = {"short": ("beard_light",), "full": ("beard_medium",)}
        kinds = next((v for k, v in allowed.items() if k in words), ("beard_light", "beard_medium"))
        return all(checks) and face.facial_hair in kinds
    checks += [hair in ("short curly", "curly", "afro")] * bool(words & {"curly", "curls"})
    checks += [hair == "bun"] * bool(words & {"tied", "tied-back", "bun", "ponytail"})
    checks += [hair == "bob"] * bool(words & {"bob", "shoulder-length", "medium-length"})
    checks += [hair in ("long wavy", "curly")] * bool(words & {"wavy", "waves"} and "shoulder-length" not in words)
    checks += [face.hair_length in ("long", "round" if "curly" in words else "long")] * ("long" in words)
    checks += [hair == "long straight"] * ("straight" in words and "long" in words)
    checks += [face.hair_length == "short"] * bool(words & {"short", "buzz", "crew", "spiky"} and "bob" not in words)
    return all(checks)  # a trait that no drawing shows (earrings, freckles) contradicts none


def _details(face: AvatarAttributes, rng: random.Random, full: bool) -> list[str]:
    """Clauses on what can be seen, each left out at random unless `full`."""
    skin, colour = rng.choice(SKIN_WORDS[face.skin]), rng.choice(HAIR_WORDS[face.hair_color])
    clauses = []
    if full or rng.random() < 0.5:
        clauses.append(rng.choice(("{} skin", "{} skin", "{} skin tone", "{} complexion")).format(skin))
    if full or rng.random() < 0.65:
        styles = [c for c in STYLE_CLAUSES[face.hair_style] if not full or c not in ("curly {c} hair", "{c} curls")]
        style = rng.choice(styles)  # in full, a clause that tells the length
        detail = 1.0 if full else rng.random()
        plain = style.replace("{c} ", "").replace("{c}", "")
        clauses.append(
            style.format(c=colour)
            if detail > 0.45
            else plain
            if detail > 0.2 or face.hair_style == "bald"
            else f"{colour} hair"
        )
    if full or rng.random() < (0.75 if face.glasses else 0.3):
        clauses.append(rng.choice(GLASSES_WORDS[face.glasses]))
    if face.gender == "male" and rng.random() < (0.7 if face.facial_hair else 0.25):
        clauses.append(rng.choice(BEARD_WORDS[face.facial_hair]))
    if rng.random() < 0.35:
        clauses.append(rng.choice(POSE_WORDS[face.pose]))
    rng.shuffle(clauses)
    return clauses


def _subject(face: AvatarAttributes, rng: random.Random) -> str:
    known = rng.random() < 0.8
    noun = rng.choice(PERSONS[face.gender if known else "any"])
    their = {"female": "her", "male": "his"}[face.gender] if known else "their"
    words = [rng.choice(AGE_WORDS[face.age])] * (rng.random() < 0.55) + [rng.choice(RACE_WORDS[face.race])] * (
        rng.random() < 0.6
    )
    if rng.random() < 0.1:
        words.append(rng.choice(SKIN_WORDS[face.skin]) + "-skinned")
    clause = rng.choice(AGE_CLAUSES[face.age]).format(their=their) if rng.random() < 0.12 else ""
    return " ".join([*words, noun, clause]).strip()


def _adjective(face: AvatarAttributes, rng: random.Random) -> str:
    options = [
        w for w in ADJECTIVES[face.expression] if face.intensity == "intense" or w not in ("tearful", "laughing")
    ]
    degree = rng.choice(DEGREES[face.intensity]) + " " if rng.random() < 0.3 and face.expression != "neutral" else ""
    # the plain first words are what people write most
    return degree + (options[0] if rng.random() < 0.35 else rng.choice(options))


def _noun(face: AvatarAttributes, rng: random.Random) -> str:
    return rng.choice(NOUNS[face.expression])


def _cue(face: AvatarAttributes, rng: random.Random) -> str:
    return rng.choice(CUES[face.expression][face.intensity])


def _units(face: AvatarAttributes, rng: random.Random) -> str:
    if rng.random() < 0.3 and face.expression != "neutral":
        return " ".join(f"AU{n}" for n in UNIT_NUMBERS[face.expression])
    units = list(ACTION_UNITS[face.expression])
    rng.shuffle(units)
    return rng.choice((" and ", ", ", " + ")).join(units)


def _filler(rng: random.Random) -> str:
    return ", ".join(rng.sample(FILLERS, rng.choice((1, 1, 2, 3))))


def _add_noise_words(text: str, rng: random.Random) -> str:
    """The text with meaningless words in between: common ones, and letters that form no word."""
    words = text.split()
    for _ in range(rng.randint(1, 4)):
        nonsense = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 7)))
        words.insert(rng.randint(0, len(words)), rng.choice(CHATTER) if rng.random() < 0.6 else nonsense)
    return " ".join(words)


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\b(with|of) (with|without|no hair|wearing|not)\b", r"\2", text)
    return re.sub(r"\s+([,.;])", r"\1", text).strip()


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _strings(inner)
