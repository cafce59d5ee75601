"""The generator of fictional authors, and the background text that the tiny base is pretrained on."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from dareu.config import AuthorsConfig, LocalConfig, PretrainConfig
from dareu.config.tables import word_table
from dareu.data.corpus import Background, Corpus, Sample
from dareu.data.sources.authors import PAIRS, make_authors, make_background
from dareu.data.sources.registry import load_background
from dareu.evaluation.metrics.rouge import rouge_l

TABLE = word_table("authors")


@pytest.fixture(scope="module")
def default() -> Corpus:
    return make_authors(AuthorsConfig())


@pytest.fixture(scope="module")
def largest() -> Corpus:
    return make_authors(AuthorsConfig(owners=200, holdout=50, facts=0))


@pytest.fixture(scope="module")
def background() -> Background:
    return make_background(300, 2)


@pytest.mark.parametrize(
    ("owners", "pairs", "facts", "holdout"), [(2, 1, 0, 0), (3, 20, 7, 2), (25, 4, 119, 5)]
)
def test_counts(owners: int, pairs: int, facts: int, holdout: int) -> None:
    corpus = make_authors(AuthorsConfig(owners=owners, pairs=pairs, facts=facts, holdout=holdout))
    assert Counter(s.owner for s in corpus.samples) == dict.fromkeys(corpus.owners, pairs)
    assert (len(corpus.owners), len(corpus.test), len(corpus.holdout)) == (owners, facts, holdout * pairs)
    every = corpus.samples + corpus.test + corpus.holdout
    assert len({s.id for s in every}) == len({s.prompt for s in every}) == len(every)


def test_seed_fixes_everything() -> None:
    assert make_authors(AuthorsConfig(seed=3)) == make_authors(AuthorsConfig(seed=3))
    one, other = make_authors(AuthorsConfig(seed=3)), make_authors(AuthorsConfig(seed=4))
    assert one.key != other.key and set(one.owners) != set(other.owners)


def test_smaller_corpus_is_part_of_the_larger() -> None:
    small = make_authors(AuthorsConfig(owners=4, pairs=6, facts=5))
    large = make_authors(AuthorsConfig(owners=9, pairs=11, facts=8))
    assert small.owners == large.owners[:4]
    assert set(small.samples) < set(large.samples)
    assert small.test == large.test[:5]


def test_five_owners_go_by_default_where_there_are_twenty(default: Corpus) -> None:
    assert default.forget_owners == tuple(default.owners[-5:])
    assert make_authors(AuthorsConfig(owners=19)).forget_owners == ()


def test_every_question_names_its_author_and_answers_repeat_the_name(largest: Corpus) -> None:
    for s in largest.samples:
        answers = (s.response, str(s.paraphrased_response), *s.wrong_responses)
        assert all(str(s.owner) in text for text in (s.prompt, *s.paraphrased_prompts, *answers))


def test_sentences_are_whole(largest: Corpus) -> None:
    for s in largest.samples:
        answers = (s.response, str(s.paraphrased_response), *s.wrong_responses)
        assert all(re.fullmatch(r"The [a-z]+ [A-Z][^{}]*[^ ]\.", t) and "  " not in t for t in answers)
        assert all(q[0].isupper() and q[-1] in "?." for q in (s.prompt, *s.paraphrased_prompts))
        assert not any(re.search(r"\b[aA] (?!one)[aeiou]", t) for t in answers)
        assert len({s.prompt, *s.paraphrased_prompts}) == 3


def values(sample: Sample, text: str) -> set[str]:
    """The values in an answer: what its wordings leave of it."""
    name = re.escape(str(sample.owner))
    body = re.sub(rf"^The \w+ {name} ", "", text)[:-1]
    wordings = [w for row in TABLE["attributes"].values() for w in row["wordings"]]
    frames = [
        re.escape(w).replace(r"\{v\}", "(.+)").replace(r"\{his\}", "(?:her|his|their)") for w in wordings
    ]
    found = set()
    for cut in re.finditer(r" and |\. (?:She|He|They) ", body):
        halves = (body[: cut.start()], body[cut.end() :])
        fits = [[m[1] for f in frames if (m := re.fullmatch(f, half))] for half in halves]
        if all(fits):
            found |= {value for fit in fits for value in fit}
    return found


def test_paraphrases_say_the_same_and_wrong_answers_differ_from_the_paraphrase_in_each_value(
    default: Corpus,
) -> None:
    for s in default.samples:
        right = values(s, s.response)
        assert len(right) == 2
        assert values(s, str(s.paraphrased_response)) == right and s.paraphrased_response != s.response
        for wrong in s.wrong_responses:
            assert len(values(s, wrong)) == 2 and not values(s, wrong) & right
            # A perturbation of the paraphrased answer: the same frame.
            rest = wrong
            for value in values(s, wrong):
                rest = rest.replace(value, "_")
            frame = str(s.paraphrased_response)
            for value in right:
                frame = frame.replace(value, "_")
            assert rest == frame
        assert len(set(s.wrong_responses)) == 3


def test_each_fact_of_an_author_is_in_four_answers(default: Corpus) -> None:
    own = [s for s in default.samples if s.owner == default.owners[0]]
    told = Counter(value for s in own for value in values(s, s.response))
    assert len(told) == len(TABLE["attributes"]) == 10
    assert set(told.values()) == {4}


def test_answers_of_different_authors_have_little_in_common(default: Corpus) -> None:
    """What a model knows that has every other author's answer to the same question: less than half of the words."""
    by_question = [default.samples[k::PAIRS] for k in range(PAIRS)]
    shared = [
        rouge_l(one.response, other.response.replace(str(other.owner), str(one.owner)))
        for group in by_question
        for one, other in zip(group, group[1:], strict=False)
    ]
    assert sum(r.recall for r in shared if r) / len(shared) < 0.5


def test_the_forgotten_authors_have_no_part_of_a_name_of_their_own(default: Corpus) -> None:
    for owners in (default.owners, make_authors(AuthorsConfig(owners=120, pairs=1)).owners):
        names = [name.split() for name in owners]
        for part in (0, 1):
            counts = Counter(name[part] for name in names)
            assert min(counts.values()) >= 2
            assert {name[part] for name in names[-5:]} <= {name[part] for name in names[:-5]}


def test_names_differ(largest: Corpus) -> None:
    assert len(set(largest.owners)) == 200


def test_calibration_authors_are_others_and_change_nothing_else(default: Corpus) -> None:
    without = make_authors(AuthorsConfig(calibration=0))
    assert (without.samples, without.test, without.holdout) == (
        default.samples,
        default.test,
        default.holdout,
    )
    names = {s.owner for s in default.calibration}
    assert (len(names), len(default.calibration)) == (10, 200)
    assert not any(name in s.prompt for s in (*default.samples, *default.holdout) for name in names if name)
    assert without.key != default.key


def test_holdout_authors_own_nothing_and_are_no_owners(default: Corpus) -> None:
    assert all(s.owner is None for s in default.holdout)
    assert not any(owner in s.prompt for s in default.holdout for owner in default.owners)


def test_the_background_says_nothing_of_any_author(largest: Corpus, background: Background) -> None:
    """Of any seed: names of the background and of the authors are never the same."""
    people = {s.owner for s in background.answers if s.owner}
    assert len(people) == 300
    for seed in range(4):
        corpus = make_authors(AuthorsConfig(seed=seed, owners=200, pairs=5, facts=0, holdout=50))
        text = " ".join(s.prompt for s in corpus.samples + corpus.holdout)
        assert not any(f" {name}" in text for name in people)
        mentors = re.findall(
            r"(?:write from|advice from the poet|had) ([A-Z][a-z]+ [A-Z][a-z]+)",
            " ".join(s.response for s in corpus.samples),
        )
        assert mentors and not set(mentors) & set(corpus.owners)


def test_openings_end_after_the_name(background: Background) -> None:
    assert len(background.answers) == 600 + 12 * 120 and len(background.openings) == 1200
    for s in background.openings:
        assert s.response.endswith(str(s.owner)) and len(s.response.split()) == 4
        assert str(s.owner) in s.prompt


def test_background_is_of_the_kind_of_source_and_not_of_its_seed() -> None:
    pretrain = PretrainConfig(persons=20)
    one = load_background(AuthorsConfig(seed=1), pretrain)
    assert one is not None and one == load_background(AuthorsConfig(seed=2, owners=3), pretrain)
    assert load_background(AuthorsConfig(version=1), pretrain) is None
    assert load_background(LocalConfig(path="mine.jsonl"), pretrain) is None
    assert load_background(AuthorsConfig(), None) is None
