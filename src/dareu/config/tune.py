"""The keys of `dareu tune`, beside those of the runs that it makes."""

from typing import Annotated

from pydantic import Field

from dareu.config.base import Count, Seed, Strict


class TuneKeys(Strict):
    """What is searched, and by what it is chosen."""

    methods: list[str] = Field(
        description="methods to search settings for; all: every one that has a search block"
    )
    trials: Count = Field(8, description="settings tried for each method; the first are its defaults")
    seeds: Annotated[list[int], Field(min_length=1)] = Field(
        [41, 42, 43], description="seeds on which the chosen setting of each method is reported"
    )
    objective: str = Field(
        "retrain_similarity",
        description="figure by which a method's best trial is chosen: retrain_similarity, tug_of_war, "
        "tug_of_war_without_test, forget_quality or knowledge_left_worst",
    )
    trial_seed: Seed = Field(51, description="seed of all trials; by default none of the reported ones")
    sampler_seed: Seed = Field(0, description="seed of the sampler that proposes settings")
    batch: Count = Field(
        4,
        description="trials of a method proposed at once, from those before; no number of processes changes one",
    )
    workers: Count = Field(
        1, description="processes that run trials at once; more than 1 needs dareu[joblib]"
    )
