"""The label space: seven expressions in alphabetical order, and how other words and orders map into it."""

from difflib import get_close_matches

EXPRESSIONS = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")

_ALIASES = {
    "anger": ("angry",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid"),
    "happy": ("happiness", "joy"),
    "neutral": (),
    "sad": ("sadness",),
    "surprise": ("surprised",),
}
_INDEX = {word: EXPRESSIONS.index(name) for name, words in _ALIASES.items() for word in (name, *words)}

# The published class orders, index by index. Training code that mixes them up scores near chance.
ORDERS = {
    "synthfer": EXPRESSIONS,
    "fer2013": ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "rafdb": ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"),
    "affectnet": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"),
    "resemotenet": ("happy", "surprise", "sad", "anger", "disgust", "fear", "neutral"),
}


def index_of(name: str) -> int:
    """Index 0..6 of an expression named in any of the field's usual words; `ValueError` names the nearest one."""
    word = name.strip().lower()
    if word not in _INDEX:
        near = get_close_matches(word, _INDEX, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown expression {name!r}{hint} Known: {', '.join(EXPRESSIONS)}.")
    return _INDEX[word]
