"""The label space: seven expressions in alphabetical order, and how other words and orders map into it."""

from synthfer.suggest import nearest

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
# Labels of published collections that are none of the seven. Their images are kept, without a label.
_OTHERS = {
    "contempt": ("contemptuous",),
    "unknown": (),
    "none": (),
    "uncertain": (),
    "no face": ("non-face", "nf", "no-face"),
}
_INDEX = {word: EXPRESSIONS.index(name) for name, words in _ALIASES.items() for word in (name, *words)}
_OTHER = {word: name for name, words in _OTHERS.items() for word in (name, *words)}

# The published class orders, index by index. Training code that confuses two of them scores near chance.
ORDERS = {
    "synthfer": EXPRESSIONS,
    "fer2013": ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "rafdb": ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"),
    "affectnet": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"),
    "resemotenet": ("happy", "surprise", "sad", "anger", "disgust", "fear", "neutral"),
}


def index_of(name: str) -> int:
    """Index 0..6 of an expression in any of the usual words (anger, angry ...); `ValueError` names the nearest one."""
    word = name.strip().lower()
    if word not in _INDEX:
        raise ValueError(f"unknown expression {name[:80]!r}{nearest(word, _INDEX)} Known: {', '.join(EXPRESSIONS)}.")
    return _INDEX[word]


def other(name: str) -> str | None:
    """The usual word for a published label that is none of the seven (contempt, no face ...); None for any other."""
    return _OTHER.get(name.strip().lower())
