import math

import pytest

from data_loaders.captions import (
    Caption,
    fallback_tags,
    format_caption_line,
    pad_sentence,
    parse_caption_line,
    parse_captions,
    read_caption_file,
    swap_left_right,
    tag_words,
)

LINE = "a person walks.#a/DET person/NOUN walk/VERB#0.0#0.0"


@pytest.mark.parametrize(
    "caption",
    [
        Caption("a person walks, slowly.", ("a/DET", "person/NOUN", "walk/VERB", "slowly/ADV")),
        Caption("someone turns", ("someone/PRON", "turn/VERB"), 1.5, 4.25),
        Caption("no tokens at all", ()),
    ],
)
def test_lines_hold_what_was_formatted(caption):
    line = format_caption_line(caption)
    assert parse_caption_line(line) == caption
    assert parse_caption_line(line + "\r\n") == caption


def test_times_say_which_part_of_the_clip_is_meant():
    assert parse_caption_line(LINE).whole_clip
    assert parse_caption_line(LINE.replace("0.0#0.0", "nan#nan")).whole_clip
    part = parse_caption_line(LINE.replace("0.0#0.0", "nan#2.5"))
    assert (part.start, part.end, part.whole_clip) == (0.0, 2.5, False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a person walks", "found 1 fields"),
        ("a person # walks#a/DET#0.0#0.0", "found 5 fields"),
        (" #a/DET#0.0#0.0", "the caption is empty"),
        ("a person walks#a/DET#start#0.0", "start"),
        ("a person walks#a/DET#0.0#inf", "inf"),
        ("a person walks#a/DET#-1.0#3.0", "-1"),
    ],
)
def test_bad_lines_are_reported_by_number(line, message):
    captions, problems = parse_captions(f"{LINE}\n\n{line}\n{LINE}\n")
    assert [caption.text for caption in captions] == ["a person walks."] * 2
    (problem,) = problems
    assert problem.startswith("line 3: ")
    assert message in problem


def test_caption_files_are_utf8(tmp_path):
    path = tmp_path / "000000.txt"
    path.write_text(LINE.replace("walks", "strolls – café"), encoding="utf-8")
    (caption,), problems = read_caption_file(path)
    assert caption.text == "a person strolls – café."
    assert problems == []


def test_sentences_have_a_fixed_length():
    tokens = tuple(f"word{i}/NOUN" for i in range(30))
    for count, length in ((0, 2), (5, 7), (19, 21), (20, 22), (30, 22)):
        sentence, stated = pad_sentence(tokens[:count])
        assert (len(sentence), stated) == (22, length)
        assert sentence[0] == "sos/OTHER"
        assert sentence[1 : length - 1] == list(tokens[: min(count, 20)])
        assert sentence[length - 1] == "eos/OTHER"
        assert set(sentence[length:]) <= {"unk/OTHER"}


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("the left hand, then the right", "the right hand, then the left"),
        ("Left LEFT left", "Right RIGHT right"),
        ("turns leftwards", "turns rightwards"),
        ("walks clockwise", "walks counterclockwise"),
        ("right-handed, stands upright", "left-handed, stands upright"),
        ("brightly cleft, nothing leftover", "brightly cleft, nothing leftover"),
    ],
)
def test_swapping_sides_is_an_involution(text, swapped):
    assert swap_left_right(text) == swapped
    assert swap_left_right(swapped) == text


@pytest.mark.parametrize("word", ["counter-clockwise", "anticlockwise", "counterclockwise"])
def test_every_spelling_of_a_turn_is_swapped(word):
    assert swap_left_right(f"a {word} circle") == "a clockwise circle"


# Part-of-speech tags


def test_tags_follow_the_words():
    assert fallback_tags("a person is slowly walking to the left and waves twice") == [
        *("a/DET", "person/NOUN", "is/AUX", "slowly/ADV", "walk/VERB", "to/ADP", "the/DET"),
        *("left/ADJ", "and/CCONJ", "wave/VERB", "twice/NUM"),
    ]


def test_a_word_between_verb_and_noun_is_told_by_its_place():
    assert fallback_tags("someone kicks")[-1] == "kick/VERB"
    assert fallback_tags("someone gives a kick")[-1] == "kick/NOUN"
    assert fallback_tags("makes two quick turns")[-1] == "turn/NOUN"


def test_lemmas_undo_the_endings():
    words = "running jumped hopping waves carries knelt feet raises punches stopped"
    lemmas = [token.split("/")[0] for token in fallback_tags(words)]
    assert lemmas[0] == "run"
    assert lemmas[1:4] == ["jump", "hop", "wave"]
    assert lemmas[5:] == ["kneel", "foot", "raise", "punch", "stop"]


def test_every_word_has_one_slash_and_numbers_are_dropped():
    text = "the man side-steps 3 times, left/right; then he's done!"
    for tokens in (fallback_tags(text), tag_words(text)):
        assert all(token.count("/") == 1 and token.split("/")[0].isalpha() for token in tokens)
    assert "sidestep/NOUN" in tag_words("sidestep")
    assert not any("-" in token for token in tag_words("a side-step"))
    assert tag_words("") == []
    assert not math.isnan(len(tag_words("3")))
