"""Captions: they name what is drawn, the tokenizer knows their words, and held-out frames stay out of training."""

import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml

import synthfer
from synthfer.builtin_faces.caption_words import ACTION_UNITS, ADJECTIVES, CUES, FRAMES, HELD_OUT, NOUNS, UNIT_NUMBERS
from synthfer.builtin_faces.captions import caption, preset_caption, preset_phrases, vocabulary
from synthfer.expressions import EXPRESSIONS
from synthfer.sources.avatars import sample_attributes

PRESET = Path(synthfer.__file__).parent / "planning" / "presets" / "portrait.yaml"


def clues(expression: str) -> list[str]:
    """Every phrase by which a caption may name an expression, in lower case."""
    cues = [c for options in CUES[expression].values() for c in options]
    return [c.lower() for c in (*ADJECTIVES[expression], *NOUNS[expression], *cues, *ACTION_UNITS[expression])]


def test_every_caption_names_its_own_expression() -> None:
    for seed in range(700):
        face = sample_attributes(seed, EXPRESSIONS[seed % 7])
        for held_out in (False, True):
            text = caption(face, seed, held_out)
            numbers = " ".join(f"au{n}" for n in UNIT_NUMBERS[face.expression])
            undisturbed = any(c in text.lower() for c in clues(face.expression)) or numbers in text.lower()
            assert undisturbed or not held_out, text
            words = set(re.findall(r"[a-z]+", text.lower()))
            assert any(set(re.findall(r"[a-z]+", c)) <= words for c in clues(face.expression)) or "au" in text.lower()


def test_no_word_names_two_expressions() -> None:
    for a, b in combinations(EXPRESSIONS, 2):
        assert not {*ADJECTIVES[a], *NOUNS[a]} & {*ADJECTIVES[b], *NOUNS[b]}
        assert UNIT_NUMBERS[a] != UNIT_NUMBERS[b]
        assert set(ACTION_UNITS[a]) != set(ACTION_UNITS[b])


def test_a_caption_is_a_function_of_its_arguments() -> None:
    face = sample_attributes(2)
    assert caption(face, 1) == caption(face, 1)
    assert len({caption(face, seed) for seed in range(50)}) > 45


def test_glasses_and_hair_are_told_truly() -> None:
    for seed in range(300):
        face = sample_attributes(seed)
        text = caption(face, seed, held_out=True, full=True)
        negated = re.search(r"(no|without|not wearing) glasses", text)
        assert bool(negated) == (face.glasses is None), text
        assert ("bald" in text or "no hair" in text or "shaved head" in text) == (face.hair_style == "bald"), text


def test_held_out_frames_are_held_out() -> None:
    assert not set(FRAMES) & set(HELD_OUT)
    text = " ".join(caption(sample_attributes(seed), seed) for seed in range(500)).lower()
    for frame in HELD_OUT:
        fixed = max(re.split(r"\{\w+\}", frame.lower()), key=len).strip(" ,.;:")
        assert fixed not in text, fixed


def test_the_vocabulary_covers_the_training_captions() -> None:
    known, unknown, total = set(vocabulary()), 0, 0
    for seed in range(500):
        words = re.findall(r"[a-z]+", caption(sample_attributes(seed), seed).lower())
        total, unknown = total + len(words), unknown + sum(w not in known for w in words)
    assert unknown / total < 0.03  # only the letters put there to be ignored
    assert known == set(vocabulary())
    assert vocabulary() == sorted(known)


def test_the_tokenizer_knows_words_and_spells_the_rest() -> None:
    build_tokenizer = pytest.importorskip("synthfer.builtin_faces.text_to_image").build_tokenizer
    tokenizer = build_tokenizer(vocabulary())
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 3, word
    ids = tokenizer("An ANGRY woman with glasses, qzx").input_ids
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert tokens[1:6] == ["an</w>", "angry</w>", "woman</w>", "with</w>", "glasses</w>"]
    assert tokens[-4:-1] == ["q", "z", "x</w>"]
    assert tokenizer.model_max_length == 77
    assert build_tokenizer(vocabulary()).get_vocab() == tokenizer.get_vocab()


@pytest.mark.skipif(not PRESET.exists(), reason="the preset is not part of this checkout")
def test_the_default_presets_sentences_describe_the_face() -> None:
    preset = yaml.safe_load(PRESET.read_text())
    known = set(vocabulary(preset_phrases(preset)))
    made = 0
    for seed in range(200):
        face = sample_attributes(seed)
        text = preset_caption(face, preset, seed)
        if text is None:
            continue
        made += 1
        assert preset["expressions"][face.expression] in text
        assert "glasses" not in text or face.glasses
        assert ("beard" in text) <= (face.facial_hair is not None)
        assert set(re.findall(r"[a-z]+", text.lower())) <= known
    assert made > 100
