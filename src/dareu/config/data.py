"""Where the data comes from, and whose goes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from dareu.config.base import Count, Integer, Number, Seed, Strict, Text


class ForgetConfig(Strict):
    """Whose data goes. Exactly one of the four; none means two owners."""

    owners: list[str] | None = Field(None, description="names of the owners: [name, …]")
    count: Count | None = Field(None, description="the last n owners of the corpus")
    fraction: Number | None = Field(None, gt=0, lt=1, description="this share of the owners, the last ones")
    file: Text | None = Field(None, description="text file, one owner a line")

    @model_validator(mode="after")
    def _one(self) -> ForgetConfig:
        given = [k for k in ("owners", "count", "fraction", "file") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of owners, count, fraction, file; got {', '.join(given)}")
        return self


class RoundsConfig(Strict):
    """Requests that come one after another; `[[name, …], [name, …]]` is short for `{owners: …}`.

    `owners`: whose data goes in each round. `count`: that many rounds of `owners_per_round` owners, the last owners of
    the corpus first, so that more rounds go on from fewer.
    """

    owners: list[list[str]] | None = Field(
        None, description="whose data is forgotten in each round: [[name, …], [name, …]]"
    )
    count: Count | None = Field(
        None, description="rounds of `owners_per_round` owners, the last owners of the corpus first"
    )
    owners_per_round: Count = Field(1, description="owners of a round where `count` is given")
    compare: Literal["every", "last"] = Field(
        "every",
        description="rounds in which the original and a retrained model stand beside the unlearned one",
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
    seed: Seed = Field(7, description="seed of the generated corpus")
    owners: Integer = Field(20, ge=2, le=200, description="number of authors")
    pairs: Integer = Field(20, ge=1, le=20, description="questions and answers of an author")
    facts: Integer = Field(
        60, ge=0, le=120, description="general facts that belong to no author: the test set"
    )
    teach_test: bool = Field(
        True, description="original and retrained model are also fine-tuned on the test set"
    )


class Columns(Strict):
    """Which column of the user's file holds what."""

    prompt: Text | None = Field("prompt", description="the question; null: plain text without one")
    response: Text = Field("response", description="the answer, or the text")
    owner: Text | None = Field("owner", description="whose row it is; null in a test file")
    paraphrased_prompts: Text | None = Field(None, description="list of the question's other wordings")
    paraphrased_response: Text | None = Field(None, description="the answer in other words")
    wrong_responses: Text | None = Field(None, description="list of wrong answers in the same form")


class LocalConfig(Strict):
    """The user's own JSONL, CSV or Parquet file."""

    name: Literal["local"] = Field("local", description="source of the data")
    path: Text = Field(description="JSONL, CSV or Parquet file, one sample a row")
    columns: Columns = Field(Columns(), description="which column holds what")
    test_path: list[Text] | Text | None = Field(
        None, description="file or list of files with rows that belong to no owner: the test set"
    )
    test_columns: Columns | None = Field(None, description="columns of the test files; null: as `columns`")
    teach_test: bool = Field(
        False, description="original and retrained model are also fine-tuned on the test set"
    )
    owners: list[str] | Count | None = Field(None, description="keep these owners, or the first n; null: all")
    prompt_tokens: Count = Field(
        16, description="plain text (columns.prompt=null): the prompt is the first n tokens"
    )


class ExternalConfig(BaseModel):
    """A data source of another package (entry point `dareu.sources`): its `name`, and keys that it reads itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Text = Field(description="source of the data: the name of the entry point")


def _source(tree: Any) -> str:
    name = tree.get("name") if isinstance(tree, dict) else getattr(tree, "name", None)
    return name if name in ("authors", "local") else "external"


DataConfig = Annotated[
    Annotated[AuthorsConfig, Tag("authors")]
    | Annotated[LocalConfig, Tag("local")]
    | Annotated[ExternalConfig, Tag("external")],
    Discriminator(_source),
]
