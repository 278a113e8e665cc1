"""Captions for drawn faces: a grammar of many wordings, so that a text encoder learned from it follows real prompts.

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

from synthfer.sources.avatars import AvatarAttributes

ADJECTIVES: dict[str, tuple[str, ...]] = {
    "anger": ("angry", "furious", "mad", "irritated", "enraged", "annoyed"),
    "disgust": ("disgusted", "revolted", "repulsed", "grossed out", "nauseated"),
    "fear": ("fearful", "afraid", "scared", "frightened", "terrified"),
    "happy": ("happy", "joyful", "cheerful", "smiling", "delighted", "glad", "laughing"),
    "neutral": ("neutral", "calm", "expressionless", "composed", "emotionless", "blank"),
    "sad": ("sad", "unhappy", "sorrowful", "gloomy", "tearful", "sorrowing"),
    "surprise": ("surprised", "astonished", "shocked", "amazed", "startled"),
}
NOUNS: dict[str, tuple[str, ...]] = {
    "anger": ("anger", "rage", "fury"),
    "disgust": ("disgust", "revulsion", "repulsion"),
    "fear": ("fear", "terror", "fright"),
    "happy": ("happiness", "joy", "delight"),
    "neutral": ("neutrality", "no emotion", "calmness"),
    "sad": ("sadness", "sorrow", "grief"),
    "surprise": ("surprise", "astonishment", "shock", "amazement"),
}
CUES: dict[str, dict[str, tuple[str, ...]]] = {
    "anger": {
        "slight": ("slightly furrowed brows and tight lips", "a mild frown and a glare", "lowered brows, pressed lips"),
        "clear": ("furrowed brows and clenched jaw", "lowered brows and tight lips", "knitted brows and a hard glare"),
        "intense": ("deeply furrowed brows and a clenched jaw", "bared teeth and furrowed brows", "clenched teeth"),
    },
    "disgust": {
        "slight": ("a slightly wrinkled nose", "a faint sneer", "a wrinkled nose"),
        "clear": ("a wrinkled nose and raised upper lip", "a curled lip and narrowed eyes", "a clear sneer"),
        "intense": ("a wrinkled nose and a raised upper lip", "a deeply wrinkled nose, tongue out",
                    "gagging, tongue out"),
    },
    "fear": {
        "slight": ("wide eyes and a tense mouth", "worried wide eyes", "raised inner brows and wide eyes"),
        "clear": ("wide eyes and tense mouth", "raised drawn brows and wide eyes", "frightened eyes, stretched lips"),
        "intense": ("eyes wide open, raised brows and a stretched open mouth", "wide eyes and gritted teeth",
                    "panicked wide eyes"),
    },
    "happy": {
        "slight": ("a gentle smile", "a slight smile", "a faint smile"),
        "clear": ("a smile and raised cheeks", "a wide smile and raised cheeks", "a bright smile"),
        "intense": ("a wide smile and raised cheeks", "a big open grin", "a broad laugh and narrowed eyes"),
    },
    "neutral": {
        "slight": ("a relaxed face", "calm eyes and a closed mouth", "a straight mouth"),
        "clear": ("a relaxed face", "calm eyes and a closed mouth", "a closed mouth, level brows"),
        "intense": ("a relaxed face", "calm eyes and a closed mouth", "a still relaxed face"),
    },
    "sad": {
        "slight": ("slightly lowered mouth corners", "a slight pout and drooping eyes", "lowered mouth corners"),
        "clear": ("a downturned mouth and raised inner brows", "a downturned mouth and drooping eyes", "drooping eyes"),
        "intense": ("tears and a downturned mouth", "crying eyes and a downturned mouth", "tears on the cheeks"),
    },
    "surprise": {
        "slight": ("raised eyebrows", "raised eyebrows and slightly open mouth", "raised brows and parted lips"),
        "clear": ("raised eyebrows and open mouth", "raised eyebrows and an open mouth", "a dropped jaw"),
        "intense": ("raised eyebrows and a wide open mouth", "highly raised eyebrows, jaw dropped",
                    "a gaping round mouth"),
    },
}  # fmt: skip
# A whole set each: no single unit tells these expressions apart.
ACTION_UNITS: dict[str, tuple[str, ...]] = {
    "anger": ("brow lowerer", "lid tightener", "lip tightener"),
    "disgust": ("nose wrinkler", "upper lip raiser"),
    "fear": ("inner brow raiser", "upper lid raiser", "lip stretcher"),
    "happy": ("cheek raiser", "lip corner puller"),
    "neutral": ("no action units",),
    "sad": ("inner brow raiser", "lip corner depressor"),
    "surprise": ("inner brow raiser", "outer brow raiser", "upper lid raiser", "jaw drop"),
}
UNIT_NUMBERS = {"anger": (4, 7, 23), "disgust": (9, 10), "fear": (1, 5, 20), "happy": (6, 12), "neutral": (0,),
                "sad": (1, 15), "surprise": (1, 2, 5, 26)}  # fmt: skip
DEGREES = {"slight": ("slightly", "mildly", "a little"), "clear": ("clearly", "visibly"),
           "intense": ("very", "intensely", "extremely")}  # fmt: skip
INTENSITY_WORDS = {
    "slight": ("slight", "mild", "subtle"),
    "clear": ("clear", "moderate"),
    "intense": ("intense", "strong"),
}

PERSONS = {"female": ("woman", "woman", "lady", "female"), "male": ("man", "man", "gentleman", "male"),
           "any": ("person", "adult", "individual")}  # fmt: skip
AGE_WORDS = {"young": ("young", "young adult", "youthful"), "middle-aged": ("middle-aged", "mature"),
             "old": ("elderly", "older", "old", "senior")}  # fmt: skip
AGE_CLAUSES = {"young": ("in {their} twenties", "25 years old", "20 something"),
               "middle-aged": ("in {their} forties", "45 years old", "in {their} fifties"),
               "old": ("in {their} seventies", "70 years old", "of old age")}  # fmt: skip
RACE_WORDS = {
    "white": ("white", "caucasian", "european"), "black": ("black", "african", "african american"),
    "east asian": ("east asian", "chinese", "japanese", "korean"), "south asian": ("south asian", "indian"),
    "middle eastern": ("middle eastern", "arab"), "latino": ("latino", "hispanic", "latina"),
    "southeast asian": ("southeast asian", "thai", "filipino"),
}  # fmt: skip
SKIN_WORDS = {"light": ("light", "fair", "pale"), "medium": ("medium", "tan", "olive", "tanned"),
              "brown": ("brown", "medium brown"), "dark": ("dark", "dark brown", "deep", "very dark")}  # fmt: skip
HAIR_WORDS = {"black": ("black", "jet black", "raven"), "brown": ("brown", "brunette", "chestnut"),
              "red": ("red", "ginger", "auburn"), "blonde": ("blonde", "blond", "golden"),
              "grey": ("grey", "gray", "silver"), "white": ("white", "snow white")}  # fmt: skip
STYLE_CLAUSES = {
    "bald": ("bald", "a bald head", "no hair", "a shaved head", "completely bald"),
    "short": ("short {c} hair", "{c} short hair", "a short {c} haircut", "cropped {c} hair"),
    "short curly": ("short curly {c} hair", "short {c} curls", "curly {c} hair", "curly short {c} hair"),
    "bob": ("a {c} bob", "shoulder-length {c} hair", "short {c} bob hair", "medium-length {c} hair",
            "chin-length {c} hair"),
    "bun": ("{c} hair in a bun", "a {c} bun", "{c} hair tied back", "tied back {c} hair", "{c} hair tied up"),
    "long straight": ("long straight {c} hair", "long {c} hair", "straight long {c} hair"),
    "long wavy": ("long wavy {c} hair", "long {c} hair", "wavy {c} hair"),
    "curly": ("curly {c} hair", "big {c} curls", "{c} curls", "thick curly {c} hair"),
    "afro": ("a {c} afro", "an afro of {c} hair", "a big {c} afro", "curly {c} hair"),
}  # fmt: skip
GLASSES_WORDS = {"round": ("wearing glasses", "glasses", "eyeglasses", "spectacles", "round glasses",
                           "wearing spectacles"),
                 "prescription_02": ("wearing glasses", "glasses", "eyeglasses", "spectacles", "square glasses"),
                 None: ("no glasses", "without glasses", "not wearing glasses")}  # fmt: skip
BEARD_WORDS = {"beard_light": ("a beard", "a short beard", "bearded", "a trimmed beard"),
               "beard_medium": ("a beard", "a full beard", "bearded", "a thick beard"),
               "moustache_fancy": ("a moustache", "a mustache"), "moustache_magnum": ("a moustache", "a mustache"),
               None: ("clean-shaven", "no beard", "without a beard", "a shaved chin")}  # fmt: skip
POSE_WORDS = {
    "frontal": ("facing the camera", "frontal view", "looking straight ahead", "front view", "looking at the camera"),
    "left": ("head turned slightly to the left", "turned to the left", "facing slightly left"),
    "right": ("head turned slightly to the right", "turned to the right", "facing slightly right"),
    "tilted": ("head tilted slightly", "tilted head", "head tilted to one side"),
}
SHOTS = ("photo", "portrait", "close-up portrait", "close-up portrait photo", "head and shoulders photo", "headshot",
         "picture", "drawing", "illustration", "studio portrait", "passport photo", "face", "avatar", "image",
         "cartoon",
         "selfie", "close up", "photograph", "profile picture", "flat vector drawing")  # fmt: skip
FILLERS = (
    "plain light background", "plain background", "clean studio background", "soft even light", "soft light",
    "natural light", "studio lighting", "high quality", "highly detailed", "sharp focus", "realistic", "50mm lens",
    "neutral colors", "white background", "grey backdrop", "shallow depth of field", "8k", "professional photography",
    "centered", "minimal", "flat design", "dslr", "film grain", "indoors", "outdoors", "in the office", "on the street",
    "warm light", "daylight", "casual clothes", "wearing a shirt", "eye level", "symmetrical", "unposed", "candid",
    "masterpiece", "clean lines", "simple shapes", "bokeh", "ring light", "golden hour", "upper body",
    "cropped at the neck",
)  # fmt: skip
# Words put between the others without a meaning; none of them may name anything that can be seen.
_COMMON = """
the a an of in on at with and or for from by to is are was this that it as very really some one two three today here
there please make show give create generate want need see seen look looks looking feel feels feeling face facial
expression emotion mood moment people human model subject person camera shot frame style art background light scene
who which while when because someone something nice good great best quality new real clear simple single only just
must should can could will would has have had he she they his her their him them you your me my we our us its be
been being do does did so such more most much many any all each other than then now after before during over under
into about like kind type sort way world day time street room home work office city summer winter color colour tone
dataset class label sample example test research study synthetic balanced emotionally news friend job party rain sun
heard watching reacting reaction unit action units number years age gender race ethnicity adult described shows
depicts displays captured
"""
_SEEN = (
    "not hair skin frown grin smile laugh cry scream glare stare tears happily sadly angrily teeth tongue eyes mouth"
)
CHATTER = tuple(_COMMON.split())

# What people write as a negative prompt; it says nothing of the face, and stands for the empty caption.
NEGATIVES = (
    "blurry", "deformed face", "extra faces", "text", "watermark", "hands over the face", "child", "low quality",
    "worst quality", "ugly", "bad anatomy", "out of frame", "jpeg artifacts", "signature", "logo", "duplicate", "nsfw",
    "painting", "lowres", "noise", "overexposed", "extra fingers", "mutated hands", "disfigured", "grainy",
)  # fmt: skip

FEELING = (
    "with {a_adj} expression", "looking {adj}", "{adj}", "showing {noun}", "with {a_adj} look", "who is {adj}",
    "feeling {adj}", "expressing {noun}", "with {a_adj} face", "who looks {adj}", "full of {noun}",
    "with an expression of {noun}",
    "{adj} expression", "with a {strength} expression of {noun}", "making {a_adj} face", "in a {adj} mood",
)  # fmt: skip
FRAMES = (
    "{shot} of {subject}, {feeling}, {details}, {filler}.",
    "A {shot} of {subject} {feeling}, {details}.",
    "{subject} {feeling}, {details}, {filler}",
    "{subject} {feeling}.",
    "{subject}, {feeling}, {details}.",
    "{filler}, {shot} of {subject}, {details}, {feeling}.",
    "{details}, {subject}, {feeling}",
    "{feeling}, {subject}, {details}, {filler}",
    "Portrait: {subject}, {details}. Expression: {noun}. {filler}.",
    "{noun}, {subject}, {details}, {shot}",
    "An image that shows {subject} {feeling}. {details}. {filler}.",
    "This is {subject} with {details}, {feeling}.",
    "{shot}, {filler}, {subject}, {details}, {feeling}",
    "a face that shows {noun}: {subject}, {details}, {filler}",
    "{subject} with {details}. The person is {adj}. {filler}.",
    "Make a {shot} of {subject}, {details}, who looks {adj}.",
    "{subject} ({details}) {feeling}; {filler}",
    "{adj} {subject_bare}, {details}, {filler}",
    "a {adj} {subject_bare} with {details}",
    "{shot} of a {adj} {subject_bare}, {details}, {filler}.",
    "emotion {noun}, {subject}, {details}",
    "The face of {subject}, {details}, {filler}, {feeling}.",
    "{filler}. {subject}. {details}. {feeling}.",
    "{shot}: {subject}, {adj}, {details}",
    "{filler}: {subject} {feeling}, {details}.",
    "one {subject_bare}, {details}, {feeling}, {filler}",
    "{subject}, {details}, {filler}, {feeling}.",
    "{shot} with {subject}, {filler}, {feeling}, {details}.",
)
HELD_OUT = (
    "Please paint me {subject} whose whole face tells of {noun}, {details}.",
    "Yesterday my camera caught {subject}, {details}, clearly {adj} about the news.",
    "We need one more example for the class {noun}: {subject}, {details}, nothing else in view.",
    "The emotion on this face is {noun}; the model is {subject}; note {details}.",
    "Seen from near by, {subject} seems {adj}. Visible: {details}.",
    "Draw {details} on {subject} and let the mood be {adj}.",
    "Somebody {adj} stands before a bare wall: {subject}, {details}.",
    "Imagine how {subject} reacts when {adj}, {details}, gallery print, muted tones.",
    "For our catalogue: {details}; {subject}; {noun} in every line of the face.",
    "{subject} could not hide the {noun}, {details}, taken with an old lens.",
    "There was {noun} in the eyes of {subject}, {details}.",
    "id picture, {details}, sitter is {subject}, state of mind {adj}",
)


# Names that presets use beside ours; a head that only looks aside is drawn from the front.
_ALSO: dict[str, tuple[str, ...]] = {
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
    by_face = not held_out and "{feeling}" in frame and "{adj}" not in frame and "{noun}" not in frame
    if by_face and rng.random() < 0.2:  # by what the face does alone
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
    return _tidy(_disturb(text, rng) if not held_out and rng.random() < 0.25 else text)


def preset_caption(face: AvatarAttributes, preset: Mapping[str, Any], seed: int | str) -> str | None:
    """The face in the words of a planning preset, or None where none of its traits is true of the face.

    Args:
        preset: the loaded YAML: `templates`, `expressions`, and `attributes` whose values map names to phrases, or
            hold `by` (names of earlier attributes) and nested `values`.
    """
    rng = random.Random(f"preset:{seed}")
    true = {"gender": (face.gender,), "age": (face.age, *_ALSO.get(face.age, ())), "pose": _ALSO[face.pose],
            "race": (face.race.replace(" ", "-"), "asian" if "asian" in face.race else "")}  # fmt: skip
    names = {"expression": face.expression}
    phrases = {"expression": preset["expressions"][face.expression]}
    for name, spec in preset["attributes"].items():
        values = spec.get("values", spec) if isinstance(spec, Mapping) else spec
        for key in spec.get("by", ()) if isinstance(spec, Mapping) else ():
            values = values[names[key]]
        pairs = values.items() if isinstance(values, Mapping) else [(v, v) for v in values]
        fit = [(k, p) for k, p in pairs if p and (k in true[name] if name in true else _is_true(k, p, face))]
        if not fit:
            return None
        names[name], phrases[name] = rng.choice(fit)
    return rng.choice(preset["templates"]).format(**phrases)


def preset_phrases(preset: Mapping[str, Any]) -> list[str]:
    """Every string of a preset, for the tokenizer's word list."""
    return list(_strings({k: preset.get(k) for k in ("templates", "negative", "expressions", "attributes")}))


def silent_captions(number: int, negatives: Sequence[str] = (), seed: int = 0) -> list[str]:
    """Texts that ask for nothing: every other one empty, the others negative prompts, the given ones among them."""
    rng = random.Random(seed)
    made = [", ".join(rng.sample(NEGATIVES, rng.randint(1, 9))) for _ in range(number // 4)]
    given = [negatives[i % len(negatives)] for i in range(number // 4)] if negatives else made
    return [*made, *given, *[""] * (number - len(made) - len(given))]


def vocabulary(more: Iterable[str] = ()) -> list[str]:
    """The sorted words of the grammar and of `more` texts; held-out frames are left out on purpose."""
    tables = (ADJECTIVES, NOUNS, CUES, ACTION_UNITS, DEGREES, INTENSITY_WORDS, PERSONS, AGE_WORDS, AGE_CLAUSES,
              RACE_WORDS,
              SKIN_WORDS, HAIR_WORDS, STYLE_CLAUSES, GLASSES_WORDS, BEARD_WORDS, POSE_WORDS, SHOTS, FILLERS, CHATTER,
              NEGATIVES, FEELING, FRAMES, _SEEN, list(more), ["skin", "complexion", "au", "skinned"])  # fmt: skip
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
        how = 1.0 if full else rng.random()
        plain = style.replace("{c} ", "").replace("{c}", "")
        clauses.append(
            style.format(c=colour)
            if how > 0.45
            else plain
            if how > 0.2 or face.hair_style == "bald"
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


def _disturb(text: str, rng: random.Random) -> str:
    """Words without meaning put in between: common ones, and letters that make no word."""
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
