"""Drawn faces with exact labels: every attribute is an instruction to the pen, so no annotator can be wrong.

The parts (hair, beards, glasses, most eyes, brows and mouths) are the avataaars set by Pablo Stanley as packaged in
py-avataaars-no-png; the frame around them, the mouths of disgust, surprise and anger, the nose wrinkles, cheeks and
lines of age are drawn here, because at 64 pixels the stock set leaves several expressions too alike.

Two pure functions: `sample_attributes(seed)` decides, `draw(attributes, size)` rasterises. All persons are adults.
As a source (`find`) it is the one that needs no download.
Needs the extra `avatars` (py-avataaars-no-png, resvg-py).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synthfer.config import option
from synthfer.expressions import EXPRESSIONS
from synthfer.sample import seed_of
from synthfer.sources.entry import Collection, Entry, ImageRef, SourceError

RGB = tuple[int, int, int]
_PEN = ("py_avataaars_no_png", "resvg_py", "jinja2")

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
class Recipe:
    """How one expression is drawn; part names are avataaars files, or keys of `_OWN` where they begin with +."""

    mouth: str
    eyes: str
    brows: str
    mouth_scale: float = 1.0
    brow_shift: float = 0.0
    extras: tuple[str, ...] = ()


def _recipes(mouths: Sequence[tuple[str, float]], eyes: Sequence[str], brows: Sequence[str], shift: float = 0.0,
             extras: tuple[str, ...] = ()) -> tuple[Recipe, ...]:  # fmt: skip
    return tuple(Recipe(m, e, b, s, shift, extras) for m, s in mouths for e in eyes for b in brows)


_ANGRY, _WORRIED = ("angry", "angry_natural"), ("sad_concerned", "sad_concerned_natural")
_RAISED, _CALM = ("raised_excited", "raised_excited_natural"), ("default", "default_natural")
RECIPES: dict[str, dict[str, tuple[Recipe, ...]]] = {
    "anger": {
        "slight": _recipes([("+pressed", 1.0)], ["default"], _ANGRY, 3),
        "clear": _recipes([("+pressed", 1.25), ("+clenched", 0.9)], ["default"], _ANGRY, 5),
        "intense": _recipes([("+clenched", 1.1), ("+clenched", 1.3)], ["default"], _ANGRY, 7),
    },
    "disgust": {
        "slight": _recipes([("+queasy", 1.0)], ["squint"], ["flat_natural"], 3, ("wrinkles",)),
        "clear": _recipes([("+sneer", 1.0), ("+queasy", 1.25)], ["squint"], ["flat_natural"], 4, ("wrinkles",)),
        "intense": _recipes([("+gag", 1.05), ("+gag", 1.2)], ["squint"], ["flat_natural"], 5, ("wrinkles",)),
    },
    "fear": {
        "slight": _recipes([("concerned", 1.0)], ["surprised"], _WORRIED, -3),
        "clear": _recipes([("grimace", 0.85), ("concerned", 1.25)], ["surprised"], _WORRIED, -4),
        "intense": _recipes([("grimace", 1.05)], ["surprised"], _WORRIED, -5, ("sweat",)),
    },
    "happy": {
        "slight": _recipes([("twinkle", 1.15)], ["default"], _CALM),
        "clear": _recipes([("smile", 1.15), ("twinkle", 1.5)], ["default", "happy"], _CALM, 0, ("cheeks",)),
        "intense": _recipes([("smile", 1.45), ("default", 1.4)], ["happy"], _CALM, -3, ("cheeks",)),
    },
    "neutral": {
        "slight": _recipes([("serious", 1.0)], ["default"], _CALM),
        "clear": _recipes([("serious", 1.0), ("serious", 1.15)], ["default"], _CALM),
        "intense": _recipes([("serious", 1.15)], ["default"], _CALM),
    },
    "sad": {
        "slight": _recipes([("sad", 1.0)], ["default"], _WORRIED, 1),
        "clear": _recipes([("sad", 1.25)], ["default", "close"], _WORRIED, 1),
        "intense": _recipes([("sad", 1.4)], ["+tears"], _WORRIED, 1),
    },
    "surprise": {
        "slight": _recipes([("+oval", 0.7)], ["surprised"], _RAISED, -3),
        "clear": _recipes([("+oval", 1.0)], ["surprised"], _RAISED, -6),
        "intense": _recipes([("+oval", 1.25)], ["surprised"], _RAISED, -9),
    },
}

# Fragments of our own, in the coordinates of the face group: mouth around (56, 74), eyes at (30, 30) and (82, 30).
_INK = 'fill="#000000" fill-opacity="0.72"'
_LINE = 'fill="none" stroke="#000000" stroke-linecap="round"'
_TEETH = "M44,71 C49,68 53,69 56,71 C59,69 63,68 68,71 L68,77 L44,77 Z"
_OWN = {
    "+pressed": f'<path {_LINE} stroke-opacity="0.72" stroke-width="6" d="M40,79 C46,71 66,71 72,79"/>'
    f'<path {_LINE} stroke-opacity="0.3" stroke-width="3" d="M49,85 L63,85"/>',
    "+clenched": f'<path {_INK} d="M35,84 C37,66 75,66 77,84 C77,88 35,88 35,84 Z"/>'
    '<path fill="#FFFFFF" d="M40,81 C42,70 70,70 72,81 Z"/>'
    f'<path {_LINE} stroke-opacity="0.45" stroke-width="2" d="M48,72 L47,82 M56,71 L56,82 M64,72 L65,82"/>',
    "+queasy": f'<path {_LINE} stroke-opacity="0.72" stroke-width="6" '
    'd="M36,80 C42,66 49,68 55,75 C61,82 68,82 75,69"/>',
    "+sneer": f'<path {_INK} d="M34,86 C37,68 46,62 56,69 C66,62 75,68 78,86 C70,80 62,84 56,81 C50,84 42,80 34,86 Z"/>'
    f'<path fill="#FFFFFF" d="{_TEETH}"/>',
    "+gag": f'<path {_INK} d="M34,84 C37,68 46,62 56,69 C66,62 75,68 78,84 C70,80 62,84 56,82 C50,84 42,80 34,84 Z"/>'
    '<path fill="#F2607A" d="M45,77 C45,74 67,74 67,77 L67,88 C67,100 45,100 45,88 Z"/>'
    f'<path {_LINE} stroke-opacity="0.25" stroke-width="2" d="M56,80 L56,90"/>',
    "+oval": f'<ellipse {_INK} cx="56" cy="78" rx="12" ry="15"/>'
    '<ellipse fill="#E0566B" cx="56" cy="87" rx="7" ry="5"/>',
    "+tears": '<circle cx="30" cy="30" r="6" fill-opacity="0.6"/><circle cx="82" cy="30" r="6" fill-opacity="0.6"/>'
    '<path fill="#5FC3F5" d="M26,38 C20,50 20,58 27,58 C34,58 34,50 26,38 Z '
    'M86,38 C80,50 80,58 87,58 C94,58 94,50 86,38 Z"/>',
    "wrinkles": f'<path {_LINE} stroke-opacity="0.5" stroke-width="3" '
    'd="M43,36 L51,41 M69,36 L61,41 M42,45 L49,48 M70,45 L63,48 M36,58 C38,54 41,52 43,51 M76,58 C74,54 71,52 69,51"/>',
    "sweat": '<path fill="#7FD0F7" d="M99,14 C93,26 93,32 99,32 C105,32 105,26 99,14 Z"/>',
    "cheeks": '<ellipse fill="#F0503C" fill-opacity="0.24" cx="21" cy="52" rx="11" ry="8"/>'
    '<ellipse fill="#F0503C" fill-opacity="0.24" cx="91" cy="52" rx="11" ry="8"/>',
    "folds": f'<path {_LINE} stroke-opacity="0.2" stroke-width="2.5" '
    'd="M36,56 C32,61 31,66 32,70 M76,56 C80,61 81,66 80,70"/>',
    "age lines": f'<path {_LINE} stroke-opacity="0.22" stroke-width="2.5" '
    'd="M36,-13 C48,-16 64,-16 76,-13 M22,43 C26,46 33,46 37,43 M75,43 C79,46 86,46 90,43"/>',
    "lashes": f'<path {_LINE} stroke-opacity="0.6" stroke-width="2.6" d="M20,25 L14,20 M92,25 L98,20"/>',
}  # fmt: skip

_PAGE = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{{ view }}">
<defs><path id="bust" d="M124,144.6 L124,163 L128,163 C167.8,163 200,195.2 200,235 L200,244 L0,244 L0,235 C0,195.2
32.2,163 72,163 L76,163 L76,144.6 C58.8,136.4 46.4,119.7 44.3,99.9 C38.5,99 34,94 34,88 L34,74 C34,68 38.3,63.1
44,62.2 L44,56
C44,25 69,0 100,0 C131,0 156,25 156,56 L156,62.2 C161.7,63.1 166,68 166,74 L166,88 C166,94 161.5,99 155.7,99.9
C153.6,119.7 141.2,136.4 124,144.6 Z"/><clipPath id="in"><use xlink:href="#bust"/></clipPath></defs>
<g transform="rotate({{ tilt }},132,110)"><g fill-rule="evenodd">
<g transform="translate(32,36)"><use xlink:href="#bust" fill="{{ skin }}"/>
<path clip-path="url(#in)" fill-opacity="0.12" d="M156,94 C156,125 131,150 100,150 C69,150 44,125 44,94 L44,102 C44,133
69,158 100,158 C131,158 156,133 156,102 Z"/></g>
{% include "clothes/" ~ clothe_type ~ ".svg" %}
<g transform="translate({{ 76 + turn }},82)" fill="#000000">{{ under }}
{% include "face/nose/default.svg" %}
<g transform="translate(56,30) scale(1.12) translate(-56,-30)">
{% if eyes_own %}{{ eyes_own }}{% else %}{% include "face/eyes/" ~ eyes ~ ".svg" %}{% endif %}</g>
{% if not brows_over %}<g transform="translate(0,{{ brow_shift }})">
{% include "face/eyebrow/" ~ brows ~ ".svg" %}</g>{% endif %}</g>
<g transform="translate({{ turn * 0.7 - 1 }},0)">
{% if beard %}{% include "top/facial_hair/" ~ beard ~ ".svg" %}{% endif %}</g>
{% include "top/" ~ top ~ ".svg" %}
<g transform="translate({{ turn - 1 }},0)">
{% if glasses %}{% include "top/accessories/" ~ glasses ~ ".svg" %}{% endif %}</g>
<g transform="translate({{ 76 + turn }},82)" fill="#000000">{{ over }}
{% if brows_over %}<g transform="translate(0,{{ brow_shift - 14 }})">
{% include "face/eyebrow/" ~ brows ~ ".svg" %}{% include "face/eyebrow/" ~ brows ~ ".svg" %}</g>{% endif %}
<g transform="translate(56,74) scale({{ mouth_scale }}) translate(-56,-74)">
{% if mouth_own %}{{ mouth_own }}{% else %}{% include "face/mouth/" ~ mouth ~ ".svg" %}{% endif %}
</g></g></g></g></svg>"""


_TURN = 9.0  # how far the features of a turned head move, in page units


@dataclass(frozen=True)
class AvatarAttributes:
    """Everything that decides a drawing. Colours are RGB in 0..255; framing is in units of a 264-unit-wide page."""

    expression: str
    intensity: str
    recipe: Recipe
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
        expression=label, intensity=intensity, recipe=_pick(rng, RECIPES[label][intensity]), gender=gender, age=age,
        race=race, skin=skin, skin_rgb=_jitter(rng, SKIN_TONES[skin], 5), hair_color=hair_color,
        hair_rgb=_jitter(rng, HAIR_COLORS[hair_color], 6), hair_style=style, top=_pick(rng, HAIR_STYLES[style]),
        glasses=_pick(rng, GLASSES) if rng.random() < 0.33 else None,
        facial_hair=_pick(rng, FACIAL_HAIR[beard]) if beard else None,
        clothes=_pick(rng, _CLOTHES), clothes_rgb=_pick(rng, _CLOTHES_COLORS), background_rgb=_pick(rng, _BACKGROUNDS),
        pose=pose,
        framing=(rng.uniform(-3, 3), rng.uniform(-3, 3), rng.uniform(172, 184), tilt),
        mirrored=bool(rng.random() < 0.5),
    )  # fmt: skip


def half(attributes: AvatarAttributes) -> int:
    """0 or 1 by what is conspicuous in a drawing: no face of one half is a face of the other with other colours."""
    a, recipe = attributes, attributes.recipe
    hair = a.top.replace("_side_part", "").replace("_strand", "")
    parts = (recipe.mouth, recipe.eyes, recipe.brows.replace("_natural", ""), hair, a.glasses, a.facial_hair)
    return hashlib.blake2b(repr((parts, a.pose in ("left", "right"))).encode(), digest_size=1).digest()[0] & 1


def draw(attributes: AvatarAttributes, size: int = 64) -> np.ndarray:
    """Rasterise one face.

    Returns:
        uint8 array of shape (size, size, 3), RGB. The same attributes give the same pixels.
    """
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=to_svg(attributes), width=size, height=size,
                                background=_hex(attributes.background_rgb), skip_system_fonts=True)  # fmt: skip
    pixels = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
    return np.ascontiguousarray(pixels[:, ::-1] if attributes.mirrored else pixels)


def to_svg(a: AvatarAttributes) -> str:
    """The drawing as SVG text, before rasterising and mirroring."""
    right, down, width, tilt = a.framing
    recipe, ids = a.recipe, count()
    turn = {"left": -_TURN, "right": _TURN}.get(a.pose, 0.0) * (-1 if a.mirrored else 1)
    under = [_OWN[e] for e in recipe.extras if e != "sweat"]
    under += [_OWN["folds"]] * (a.age != "young") + [_OWN["age lines"]] * (a.age == "old")
    under += [_OWN["lashes"]] * (a.gender == "female")
    view = (132 - right - width / 2, 112 - down - width / 2, width, width)
    return _template().render(
        view=" ".join(f"{v:.3f}" for v in view), tilt=f"{tilt:.3f}", turn=turn, skin=_hex(a.skin_rgb), top=a.top,
        unique_id=lambda prefix=None: f"{prefix}-{next(ids)}", template_name=lambda _: f"part-{next(ids)}",
        template_path=lambda folder, part: f"{folder}/{part.name}.svg",
        skin_color=_Paint(_hex(a.skin_rgb)), hair_color=_Paint(_hex(a.hair_rgb)),
        facial_hair_color=_Paint(_hex(a.hair_rgb)),
        clothe_type=a.clothes, clothe_color=_Paint(_hex(a.clothes_rgb)), hat_color=_Paint("#262E33"),
        facial_hair_type=_Paint("", "none"), accessories_type=_Paint("", "none"),
        beard=a.facial_hair, glasses=a.glasses,
        eyes=recipe.eyes, eyes_own=_OWN.get(recipe.eyes), brows=recipe.brows, brow_shift=recipe.brow_shift,
        brows_over=bool(a.glasses) and recipe.brow_shift >= 3,  # frames hide lowered brows: draw them above
        mouth=recipe.mouth, mouth_own=_OWN.get(recipe.mouth), mouth_scale=recipe.mouth_scale,
        under="".join(under), over=_OWN["sweat"] if "sweat" in recipe.extras else "",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many faces to draw, and which."""

    total: int = option(700, "faces, spread evenly over the expressions", low=1)
    size: int = option(64, "side in pixels", low=16, high=2048)
    seed: int = option(0, "other faces for another seed", low=0)


def find(path: Path | None, config: Config) -> Collection:
    """Drawn faces as a collection of their own; there is no path. `SourceError`: the pen is not installed."""
    if missing := [name for name in _PEN if find_spec(name) is None]:
        raise SourceError(
            f"source avatars draws with packages that are not installed ({', '.join(missing)}); run: pip install "
            "'py-avataaars-no-png>=1.0,<2' 'resvg-py>=0.5,<1' 'jinja2>=3.1,<4' (the extra avatars)"
        )
    return Collection(
        layout="drawn by code",
        entries=_entries(config),
        licence="MIT (py-avataaars-no-png); the avataaars design by Pablo Stanley is free for any use",
        kind="synthetic",
        source_type="algorithmicMedia",
    )


def _entries(config: Config) -> Iterator[Entry]:
    for index in range(config.total):
        seed, label = seed_of(config.seed, "avatar", index), index % len(EXPRESSIONS)
        face = sample_attributes(seed, EXPRESSIONS[label])
        yield Entry(
            key=f"{config.seed}/{index}/{config.size}",
            image=ImageRef("avatars", start=seed, length=config.size, name=EXPRESSIONS[label]),
            label=label,
            attributes={name: getattr(face, name) for name in ("gender", "age", "race", "pose", "intensity")},
        )


def picture(ref: ImageRef) -> np.ndarray:
    """The face that a place of this source stands for: uint8, size x size x 3."""
    return draw(sample_attributes(ref.start, ref.name), ref.length)


@dataclass(frozen=True)
class _Paint:
    """What the package's templates read of its colour and part enums."""

    main_value: str
    name: str = "part"

    def __str__(self) -> str:
        return self.name


@cache
def _template() -> Any:
    """The page, compiled once; the package itself rebuilds its environment for every face."""
    import jinja2

    loader = jinja2.ChoiceLoader(
        [jinja2.DictLoader({"page.svg": _PAGE}), jinja2.PackageLoader("py_avataaars_no_png", "templates")]
    )
    return jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True).get_template("page.svg")


def _pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _jitter(rng: np.random.Generator, color: RGB, amount: int) -> RGB:
    light = int(rng.integers(-amount, amount + 1))
    r, g, b = (int(np.clip(c + light + rng.integers(-2, 3), 0, 255)) for c in color)
    return r, g, b


def _hex(color: RGB) -> str:
    return "#{:02X}{:02X}{:02X}".format(*color)
