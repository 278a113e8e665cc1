"""Drawing a face as SVG and rasterising it: `draw(attributes, size)`.

Hair, beards, glasses, most eyes, brows and mouths are the parts of py-avataaars-no-png; the frame around them, the
mouths of disgust, surprise and anger, the nose wrinkles, cheeks and lines of age are defined here.
"""

import io
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import numpy as np
from PIL import Image

from synthfer.sources.avatars.attributes import RGB, AvatarAttributes

# SVG fragments, in the coordinates of the face group: mouth around (56, 74), eyes at (30, 30) and (82, 30).
_INK = 'fill="#000000" fill-opacity="0.72"'
_LINE = 'fill="none" stroke="#000000" stroke-linecap="round"'
_TEETH = "M44,71 C49,68 53,69 56,71 C59,69 63,68 68,71 L68,77 L44,77 Z"
_FRAGMENTS = {
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
    parts, ids = a.parts, count()
    turn = {"left": -_TURN, "right": _TURN}.get(a.pose, 0.0) * (-1 if a.mirrored else 1)
    under = [_FRAGMENTS[e] for e in parts.extras if e != "sweat"]
    under += [_FRAGMENTS["folds"]] * (a.age != "young") + [_FRAGMENTS["age lines"]] * (a.age == "old")
    under += [_FRAGMENTS["lashes"]] * (a.gender == "female")
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
        eyes=parts.eyes, eyes_own=_FRAGMENTS.get(parts.eyes), brows=parts.brows, brow_shift=parts.brow_shift,
        brows_over=bool(a.glasses) and parts.brow_shift >= 3,  # frames hide lowered brows: draw them above
        mouth=parts.mouth, mouth_own=_FRAGMENTS.get(parts.mouth), mouth_scale=parts.mouth_scale,
        under="".join(under), over=_FRAGMENTS["sweat"] if "sweat" in parts.extras else "",
    )  # fmt: skip


@dataclass(frozen=True)
class _Paint:
    """Stands in for the package's enums of colours and parts, of which its templates read these two fields."""

    main_value: str
    name: str = "part"

    def __str__(self) -> str:
        return self.name


@cache
def _template() -> Any:
    """The SVG template, compiled once; the package itself rebuilds its environment for every face."""
    import jinja2

    loader = jinja2.ChoiceLoader(
        [jinja2.DictLoader({"page.svg": _PAGE}), jinja2.PackageLoader("py_avataaars_no_png", "templates")]
    )
    return jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True).get_template("page.svg")


def _hex(color: RGB) -> str:
    return "#{:02X}{:02X}{:02X}".format(*color)
