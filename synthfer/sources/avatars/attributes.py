"""What decides a drawn face: an adult with an expression, chosen at random by `sample_attributes(seed)`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthfer.expressions import EXPRESSIONS

RGB = tuple[int, int, int]
INTENSITIES = ("slight", "clear", "intense")
GENDERS = ("female", "male")
AGES = ("young", "middle-aged", "old")
POSES = ("frontal", "left", "right", "tilted")  # left and right as the viewer sees them
SKIN_TONES: dict[str, RGB] = {
    "light": (252, 217, 184),
    "medium": (226, 172, 124),
    "brown": (178, 116, 72),
    "dark": (112, 72, 52),
}
HAIR_COLORS: dict[str, RGB] = {
    "black": (34, 26, 26),
    "brown": (112, 66, 44),
    "red": (184, 78, 36),
    "blonde": (222, 182, 104),
    "grey": (158, 156, 158),
    "white": (236, 234, 232),
}
# race -> (skin tones, hair colours before grey), the plausible range of each
RACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "white": (("light", "light", "medium"), ("black", "brown", "brown", "red", "blonde", "blonde")),
    "black": (("dark", "dark", "brown"), ("black", "black", "brown")),
    "east asian": (("light", "medium"), ("black", "black", "brown")),
    "south asian": (("medium", "brown", "brown"), ("black", "black", "brown")),
    "middle eastern": (("light", "medium"), ("black", "black", "brown")),
    "latino": (("light", "medium", "brown"), ("black", "brown")),
    "southeast asian": (("medium", "brown"), ("black", "black", "brown")),
}
HAIR_STYLES: dict[str, tuple[str, ...]] = {
    "bald": ("no_hair",),
    "short": ("short_hair_short_flat", "short_hair_short_round", "short_hair_the_caesar",
              "short_hair_the_caesar_side_part", "short_hair_short_waved"),
    "short curly": ("short_hair_short_curly", "short_hair_dreads_01"),
    "bob": ("long_hair_bob", "long_hair_not_too_long"),
    "bun": ("long_hair_bun",),
    "long straight": ("long_hair_straight", "long_hair_straight_strand"),
    "long wavy": ("long_hair_big_hair", "long_hair_straight2"),
    "curly": ("long_hair_curly",),
    "afro": ("long_hair_fro",),
}  # fmt: skip
HAIR_LENGTH = {"bald": "none", "short": "short", "short curly": "short", "bob": "medium", "bun": "tied",
               "long straight": "long", "long wavy": "long", "curly": "round", "afro": "round"}  # fmt: skip
_STYLE_ODDS = {
    "female": {"short": 0.12, "short curly": 0.07, "bob": 0.22, "bun": 0.15, "long straight": 0.18,
               "long wavy": 0.13, "curly": 0.07, "afro": 0.06},
    "male": {"bald": 0.16, "short": 0.52, "short curly": 0.18, "afro": 0.05, "curly": 0.03, "long straight": 0.06},
}  # fmt: skip
GLASSES = ("prescription_02", "round")
FACIAL_HAIR = {"beard": ("beard_light", "beard_medium"), "moustache": ("moustache_fancy", "moustache_magnum")}
_CLOTHES = ("shirt_crew_neck", "shirt_v_neck", "shirt_scoop_neck", "collar_sweater", "blazer_shirt")
_CLOTHES_COLORS: tuple[RGB, ...] = (
    (60, 79, 92), (81, 153, 228), (37, 85, 124), (146, 149, 152), (230, 110, 110), (96, 160, 120), (240, 240, 240),
)  # fmt: skip
_BACKGROUNDS: tuple[RGB, ...] = ((245, 245, 245), (232, 236, 240), (226, 236, 245), (243, 238, 229), (233, 241, 233))


@dataclass(frozen=True)
class ExpressionParts:
    """How one expression is drawn; names are files of avataaars, or, with a leading +, fragments of `drawing`."""

    mouth: str
    eyes: str
    brows: str
    mouth_scale: float = 1.0
    brow_shift: float = 0.0
    extras: tuple[str, ...] = ()


def _combinations(mouths: Sequence[tuple[str, float]], eyes: Sequence[str], brows: Sequence[str], shift: float = 0.0,
             extras: tuple[str, ...] = ()) -> tuple[ExpressionParts, ...]:  # fmt: skip
    return tuple(ExpressionParts(m, e, b, s, shift, extras) for m, s in mouths for e in eyes for b in brows)


_ANGRY, _WORRIED = ("angry", "angry_natural"), ("sad_concerned", "sad_concerned_natural")
_RAISED, _CALM = ("raised_excited", "raised_excited_natural"), ("default", "default_natural")
EXPRESSION_PARTS: dict[str, dict[str, tuple[ExpressionParts, ...]]] = {
    "anger": {
        "slight": _combinations([("+pressed", 1.0)], ["default"], _ANGRY, 3),
        "clear": _combinations([("+pressed", 1.25), ("+clenched", 0.9)], ["default"], _ANGRY, 5),
        "intense": _combinations([("+clenched", 1.1), ("+clenched", 1.3)], ["default"], _ANGRY, 7),
    },
    "disgust": {
        "slight": _combinations([("+queasy", 1.0)], ["squint"], ["flat_natural"], 3, ("wrinkles",)),
        "clear": _combinations([("+sneer", 1.0), ("+queasy", 1.25)], ["squint"], ["flat_natural"], 4, ("wrinkles",)),
        "intense": _combinations([("+gag", 1.05), ("+gag", 1.2)], ["squint"], ["flat_natural"], 5, ("wrinkles",)),
    },
    "fear": {
        "slight": _combinations([("concerned", 1.0)], ["surprised"], _WORRIED, -3),
        "clear": _combinations([("grimace", 0.85), ("concerned", 1.25)], ["surprised"], _WORRIED, -4),
        "intense": _combinations([("grimace", 1.05)], ["surprised"], _WORRIED, -5, ("sweat",)),
    },
    "happy": {
        "slight": _combinations([("twinkle", 1.15)], ["default"], _CALM),
        "clear": _combinations([("smile", 1.15), ("twinkle", 1.5)], ["default", "happy"], _CALM, 0, ("cheeks",)),
        "intense": _combinations([("smile", 1.45), ("default", 1.4)], ["happy"], _CALM, -3, ("cheeks",)),
    },
    "neutral": {
        "slight": _combinations([("serious", 1.0)], ["default"], _CALM),
        "clear": _combinations([("serious", 1.0), ("serious", 1.15)], ["default"], _CALM),
        "intense": _combinations([("serious", 1.15)], ["default"], _CALM),
    },
    "sad": {
        "slight": _combinations([("sad", 1.0)], ["default"], _WORRIED, 1),
        "clear": _combinations([("sad", 1.25)], ["default", "close"], _WORRIED, 1),
        "intense": _combinations([("sad", 1.4)], ["+tears"], _WORRIED, 1),
    },
    "surprise": {
        "slight": _combinations([("+oval", 0.7)], ["surprised"], _RAISED, -3),
        "clear": _combinations([("+oval", 1.0)], ["surprised"], _RAISED, -6),
        "intense": _combinations([("+oval", 1.25)], ["surprised"], _RAISED, -9),
    },
}


@dataclass(frozen=True)
class AvatarAttributes:
    """Everything that decides a drawing. Colours are RGB in 0..255; framing is in units of a 264-unit-wide page."""

    expression: str
    intensity: str
    parts: ExpressionParts
    gender: str
    age: str
    race: str
    skin: str
    skin_rgb: RGB
    hair_color: str
    hair_rgb: RGB
    hair_style: str
    top: str
    glasses: str | None
    facial_hair: str | None
    clothes: str
    clothes_rgb: RGB
    background_rgb: RGB
    pose: str
    framing: tuple[float, float, float, float]  # shift right, shift down, width of the view, tilt in degrees
    mirrored: bool

    @property
    def hair_length(self) -> str:
        """One of none, short, medium, long, tied, round."""
        return HAIR_LENGTH[self.hair_style]


def sample_attributes(seed: int, expression: str | None = None) -> AvatarAttributes:
    """Draw one adult at random; a pure function of the seed.

    Args:
        seed: any non-negative integer.
        expression: one of `EXPRESSIONS`, or None to choose evenly.
    """
    rng = np.random.default_rng(seed)
    label = _pick(rng, EXPRESSIONS)
    label = expression or label
    if label not in EXPRESSIONS:
        raise ValueError(f"unknown expression {label!r}; choose one of {', '.join(EXPRESSIONS)}")
    intensity, gender = _pick(rng, INTENSITIES), _pick(rng, GENDERS)
    age = str(rng.choice(AGES, p=(0.45, 0.3, 0.25)))
    race = _pick(rng, tuple(RACES))
    tones, natural = RACES[race]
    skin = _pick(rng, tones)
    hair_color = _pick(rng, ("grey", "white")) if age == "old" else _pick(rng, natural)
    hair_color = _pick(rng, tuple(HAIR_COLORS)) if rng.random() < 0.1 else hair_color  # dyed
    odds = _STYLE_ODDS[gender]
    style = str(rng.choice(list(odds), p=list(odds.values())))
    beard = _pick(rng, ("beard", "moustache")) if gender == "male" and rng.random() < 0.4 else None
    pose = str(rng.choice(POSES, p=(0.55, 0.15, 0.15, 0.15)))
    tilt = rng.uniform(8, 12) * _pick(rng, (-1, 1)) if pose == "tilted" else rng.uniform(-2, 2)
    return AvatarAttributes(
        expression=label, intensity=intensity, parts=_pick(rng, EXPRESSION_PARTS[label][intensity]),
        gender=gender, age=age, race=race, skin=skin, skin_rgb=_jitter(rng, SKIN_TONES[skin], 5), hair_color=hair_color,
        hair_rgb=_jitter(rng, HAIR_COLORS[hair_color], 6), hair_style=style, top=_pick(rng, HAIR_STYLES[style]),
        glasses=_pick(rng, GLASSES) if rng.random() < 0.33 else None,
        facial_hair=_pick(rng, FACIAL_HAIR[beard]) if beard else None,
        clothes=_pick(rng, _CLOTHES), clothes_rgb=_pick(rng, _CLOTHES_COLORS), background_rgb=_pick(rng, _BACKGROUNDS),
        pose=pose,
        framing=(rng.uniform(-3, 3), rng.uniform(-3, 3), rng.uniform(172, 184), tilt),
        mirrored=bool(rng.random() < 0.5),
    )  # fmt: skip


def appearance_half(attributes: AvatarAttributes) -> int:
    """0 or 1 by what is conspicuous in a drawing: no face of one half is a face of the other in other colours."""
    a, parts = attributes, attributes.parts
    hair = a.top.replace("_side_part", "").replace("_strand", "")
    visible = (parts.mouth, parts.eyes, parts.brows.replace("_natural", ""), hair, a.glasses, a.facial_hair)
    return hashlib.blake2b(repr((visible, a.pose in ("left", "right"))).encode(), digest_size=1).digest()[0] & 1


def _pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _jitter(rng: np.random.Generator, color: RGB, amount: int) -> RGB:
    light = int(rng.integers(-amount, amount + 1))
    r, g, b = (int(np.clip(c + light + rng.integers(-2, 3), 0, 255)) for c in color)
    return r, g, b
