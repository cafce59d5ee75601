"""Semantic overlap: forget samples that also stand, in other words, among those who stay."""

from dataclasses import replace

from dareu.data.corpus import Corpus, Sample, Split
from dareu.errors import DataError


def plant(corpus: Corpus, split: Split, count: int) -> Corpus:
    """The corpus with `count` paraphrased forget samples more, under owners who stay (the paper's semantic overlap).

    They are taken evenly over the forget samples that have a paraphrased response, and given to the owners who stay in
    turn. So the original and the retrained model learn them, and unlearning has to keep what they say.

    Raises:
        DataError: Fewer samples have a paraphrased response.
    """
    told = [s for s in split.forget if s.paraphrased_response]
    if count > len(told):
        raise DataError(
            f"forget.planted={count}, but {len(told)} of {len(split.forget)} forget samples have a paraphrased "
            "response.",
            f"Set forget.planted to at most {len(told)}."
            if told
            else "Take data with paraphrased responses.",
        )
    chosen = [told[i * len(told) // count] for i in range(count)]
    owners = split.retain_owners
    planted = (_planted(s, owners[i % len(owners)]) for i, s in enumerate(chosen))
    return replace(corpus, samples=(*corpus.samples, *planted))


def _planted(sample: Sample, owner: str) -> Sample:
    prompt = next(iter(sample.paraphrased_prompts), sample.prompt)
    return Sample(f"{sample.id}, planted", owner, prompt, str(sample.paraphrased_response))
