"""The classic fictional authors (`data.version=1`) and the general facts."""

from __future__ import annotations

from collections import Counter

import pytest

from dareu.config import AuthorsConfig
from dareu.config.tables import word_table
from dareu.data.corpus import Corpus, Sample
from dareu.data.sources.authors import make_authors
from dareu.data.sources.facts import TABLES, make_facts
from dareu.errors import ConfigError

tables = word_table("authors_classic")
KINDS = tables["kinds"]


@pytest.fixture(scope="module")
def largest() -> Corpus:
    return make_authors(AuthorsConfig(version=1, owners=200, pairs=20, facts=120))


@pytest.mark.parametrize(("owners", "pairs", "facts"), [(2, 1, 0), (3, 20, 7), (200, 20, 120)])
def test_counts(owners: int, pairs: int, facts: int) -> None:
    corpus = make_authors(AuthorsConfig(version=1, owners=owners, pairs=pairs, facts=facts))
    assert len(corpus.owners) == owners
    assert len(corpus.samples) == owners * pairs
    assert len(corpus.test) == facts
    assert all(sum(s.owner == o for s in corpus.samples) == pairs for o in corpus.owners)
    assert len({s.id for s in corpus.samples + corpus.test}) == owners * pairs + facts


def test_seed_fixes_everything() -> None:
    assert make_authors(AuthorsConfig(version=1, seed=3)) == make_authors(AuthorsConfig(version=1, seed=3))
    one, other = (
        make_authors(AuthorsConfig(version=1, seed=3)),
        make_authors(AuthorsConfig(version=1, seed=4)),
    )
    assert one.key != other.key
    assert one.owners != other.owners
    assert [s.prompt for s in one.test] != [s.prompt for s in other.test]


def test_smaller_corpus_is_part_of_the_larger() -> None:
    small = make_authors(AuthorsConfig(version=1, owners=4, pairs=6, facts=5))
    large = make_authors(AuthorsConfig(version=1, owners=9, pairs=11, facts=8))
    assert small.owners == large.owners[:4]
    assert set(small.samples) < set(large.samples)
    assert small.test == large.test[:5]


def value_of(sample: Sample, answers: list[str], words: dict[str, str]) -> tuple[str, set[str]]:
    """The value asked for and the wrong values, read back through the frame that the response fits."""
    for frame in answers:
        head, tail = frame.replace("{v}", "\0").format(**words).split("\0")
        texts = (sample.response, *sample.wrong_responses)
        if all(t.startswith(head) and t.endswith(tail) for t in texts):
            right, *wrong = (t[len(head) : len(t) - len(tail)] for t in texts)
            return right, set(wrong)
    raise AssertionError(f"no frame fits {sample}")


def test_samples_have_paraphrases_and_wrong_answers_of_the_same_kind(largest: Corpus) -> None:
    pronouns = {"women": "she", "men": "he", "either": "they"}
    pronoun = {
        given: p
        for culture in tables["names"].values()
        for key, p in pronouns.items()
        for given in culture[key]
    }
    for sample in largest.samples:
        kind = KINDS[int(sample.id.rsplit("/", 1)[1])]
        name = str(sample.owner)
        words = {"name": name, **tables["pronouns"][pronoun[name.split()[0]]]}
        questions = {q.format(**words) for q in kind["questions"]}
        assert {sample.prompt, *sample.paraphrased_prompts} == questions and len(
            sample.paraphrased_prompts
        ) >= 2

        value, wrong = value_of(sample, kind["answers"], words)
        assert len(wrong) == 3 and value not in wrong
        if kind["attribute"] in tables["shared"]:
            assert {value, *wrong} <= set(tables["shared"][kind["attribute"]])
        # The paraphrased answer says the same value in another frame.
        others = {frame.format(v=value, **words) for frame in kind["answers"]} - {sample.response}
        assert sample.paraphrased_response in others


def test_every_question_names_its_author(largest: Corpus) -> None:
    assert all(str(s.owner) in text for s in largest.samples for text in (s.prompt, *s.paraphrased_prompts))


def test_no_frame_is_left_unfilled_and_sentences_end(largest: Corpus) -> None:
    for s in largest.samples + largest.test:
        answers = (s.response, str(s.paraphrased_response), *s.wrong_responses)
        assert all(t[0].isupper() or t[0] in '"' for t in answers)
        assert all(t.endswith(".") and "{" not in t and "  " not in t for t in answers)
        assert all(q[0].isupper() and q[-1] in "?." for q in (s.prompt, *s.paraphrased_prompts))


def test_owners_share_some_values_and_differ_in_others() -> None:
    corpus = make_authors(AuthorsConfig(version=1, owners=20))
    kinds = [kind["attribute"] for kind in KINDS]
    words = [s.response.replace(str(s.owner), "_") for s in corpus.samples]
    by_kind = {k: [w for i, w in enumerate(words) if i % len(kinds) == n] for n, k in enumerate(kinds)}
    genres = [g for w in by_kind["genre"] for g in tables["shared"]["genre"] if g in w]
    assert len(genres) == 20 and len(set(genres)) == 8  # eight genres for twenty owners: some must share
    titles = [w.split('"')[1] for w in by_kind["first book"]]
    assert len(set(titles)) == 20


@pytest.mark.parametrize(("owners", "least"), [(20, 3), (36, 6)])
def test_every_part_of_a_name_serves_several_owners(owners: int, least: int) -> None:
    """Without the two forgotten owners, too, every part of their names is one that the retained owners have."""
    names = [n.split() for n in make_authors(AuthorsConfig(version=1, owners=owners, pairs=1)).owners]
    for part in (0, 1):
        assert min(Counter(n[part] for n in names).values()) >= least
        assert {n[part] for n in names[-2:]} <= {n[part] for n in names[:-2]}


def test_names_differ(largest: Corpus) -> None:
    assert len(set(largest.owners)) == 200


def test_values_are_dealt_out_evenly() -> None:
    """Ten values for twenty owners: each is had by two."""
    corpus = make_authors(AuthorsConfig(version=1, owners=20))
    kind = [k["attribute"] for k in KINDS].index("college")
    told = [s.response for i, s in enumerate(corpus.samples) if i % len(KINDS) == kind]
    counts = [sum(college in text for text in told) for college in tables["shared"]["college"]]
    assert counts == [2] * 10


def test_facts_are_right_and_wrong_answers_are_wrong() -> None:
    facts = make_facts(120, seed=0)
    by_prompt = {s.prompt: s for s in facts}
    assert len(by_prompt) == 120
    france = by_prompt["What is the capital of France?"]
    assert france.owner is None
    assert france.response == "The capital of France is Paris."
    assert france.paraphrased_response == "Paris is the capital city of France."
    cities = set(TABLES["capital"].facts.values()) - {"Paris"}
    assert len(set(france.wrong_responses)) == 3
    assert set(france.wrong_responses) <= {f"{c} is the capital city of France." for c in cities}
    assert all(len({s.response, *s.wrong_responses}) == 4 for s in facts)
    spider = by_prompt["How many legs does a spider have?"]
    assert spider.response == "The number of legs of a spider is eight."


@pytest.mark.parametrize("count", [-1, 121])
def test_too_many_facts(count: int) -> None:
    with pytest.raises(ConfigError, match="0 to 120"):
        make_facts(count, seed=0)
