"""Tests of the spellings of noise levels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.errors import InputError
from nls_tune.noise import NoiseLevel, parse_noise_level, parse_noise_levels

RATE_KINDS = ("symmetric", "pairflip", "asymmetric", "instance")


class TestSpelling:
    @pytest.mark.parametrize(
        ("text", "stored"),
        [
            ("clean", "clean"),
            (" Clean ", "clean"),
            ("given", "given"),
            ("symmetric:0.40", "symmetric:0.4"),
            ("SYMMETRIC : .4", "symmetric:0.4"),
            ("symmetric:4e-1", "symmetric:0.4"),
            ("symmetric:0", "symmetric:0"),
            ("symmetric:-0", "symmetric:0"),
            ("symmetric:1.00", "symmetric:1"),
            ("matrix:Some Folder/M.csv", "matrix:Some Folder/M.csv"),
            ("matrix:C:/M.csv", "matrix:C:/M.csv"),
            ("human:Worse", "human:worst"),
            ("human:aggregate", "human:aggre"),
            ("human:random2", "human:random2"),
            ("human:noisy", "human:noisy"),
            ("Majority", "majority"),
            ("soft", "soft"),
            ("Dawid-Skene", "dawid-skene"),
            ("annotator: Ann: B", "annotator:Ann: B"),
        ],
    )
    def test_one_spelling_is_stored(self, text, stored):
        assert str(parse_noise_level(text)) == stored
        assert parse_noise_level(stored) == parse_noise_level(text)

    @given(
        st.text("symetricdgn:0.5 \n雜", max_size=20)
        | st.builds("{}:{!r}".format, st.sampled_from(RATE_KINDS), st.floats(0, 1))
    )
    def test_any_text_is_a_level_that_survives_the_round_trip_or_an_input_error(self, text):
        try:
            level = parse_noise_level(text)
        except InputError:
            return
        assert parse_noise_level(str(level)) == level

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("symmetrc:0.4", r"unknown noise level 'symmetrc' \(did you mean 'symmetric'\?\); valid: clean, symm"),
            ("sym:0.4", "did you mean 'symmetric'"),
            ("", "unknown noise level ''"),
            ("0.4", "unknown noise level '0.4'"),
            ("symmetric", "'symmetric' needs a rate; write for example 'symmetric:0.4'"),
            ("symmetric:", "nothing after the colon; write for example 'symmetric:0.4'"),
            ("clean:", "nothing after the colon; write for example 'clean'"),
            ("symmetric:40%", "must be a number from 0 to 1, got '40%'"),
            ("symmetric:0_4", "got '0_4'"),
            ("symmetric:40", "must be from 0 to 1, got 40; 0.4 stands for 40 %"),
            ("pairflip:-0.1", "the rate of noise level 'pairflip' must be from 0 to 1, got -0.1"),
            ("instance:nan", "got nan"),
            ("instance:inf", "got inf"),
            ("clean:0.3", "'clean' cannot take '0.3'; write for example 'clean'"),
            ("given:x", "'given' cannot take 'x'"),
            ("human", "'human' needs a label set; write for example 'human:worst'"),
            ("human:wrst", r"unknown human label set 'wrst' \(did you mean 'worst'\?\)"),
            ("matrix", "'matrix' needs a file; write for example 'matrix:FILE'"),
            ("annotator", "'annotator' needs a name; write for example 'annotator:NAME'"),
            ("majority:a", "'majority' cannot take 'a'; write for example 'majority'"),
        ],
    )
    def test_says_what_is_wrong(self, text, message):
        with pytest.raises(InputError, match=message) as raised:
            parse_noise_level(text)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"kind": "clean", "rate": 0.2}, "'clean' cannot take 0.2"),
            ({"kind": "symmetric"}, "needs a rate"),
            ({"kind": "symmetric", "rate": 0.2, "source": "x"}, "cannot take 'x'"),
            ({"kind": "matrix", "source": ""}, "needs a file"),
            ({"kind": "noise"}, "unknown noise level 'noise'"),
        ],
    )
    def test_a_level_cannot_be_made_wrong(self, arguments, message):
        with pytest.raises(InputError, match=message):
            NoiseLevel(**arguments)

    def test_lists_have_no_empty_items_and_a_level_once(self):
        levels = parse_noise_levels(" symmetric:0.2, human:worse ,clean")
        assert [str(level) for level in levels] == ["symmetric:0.2", "human:worst", "clean"]
        for text in ("", " ", "clean,", ",clean", "clean,,given"):
            with pytest.raises(InputError, match="must hold a level between all commas"):
                parse_noise_levels(text)
        with pytest.raises(InputError, match="is in the list twice"):
            parse_noise_levels("human:worst,clean,human:worse")
