"""Where the data comes from, and whose goes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from dareu.config.base import Count, Strict


class ForgetConfig(Strict):
    """Whose data goes. Exactly one of the four; none means two owners."""

    owners: list[str] | None = None
    count: Count | None = None
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    file: str | None = Field(None, description="text file, one owner a line")

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

    owners: list[list[str]] | None = None
    count: Count | None = None
    owners_per_round: Count = 1
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

    name: Literal["authors"] = "authors"
    seed: int = 7
    owners: Annotated[int, Field(ge=2, le=200)] = 20
    pairs: Annotated[int, Field(ge=1, le=20)] = 20
    facts: Annotated[int, Field(ge=0, le=120)] = 60
    teach_test: bool = True


class Columns(Strict):
    """Which column of the user's file holds what."""

    prompt: str | None = "prompt"
    response: str = "response"
    owner: str | None = "owner"
    paraphrased_prompts: str | None = None
    paraphrased_response: str | None = None
    wrong_responses: str | None = None


class LocalConfig(Strict):
    """The user's own JSONL, CSV or Parquet file."""

    name: Literal["local"] = "local"
    path: str
    columns: Columns = Columns()
    test_path: list[str] | str | None = None
    test_columns: Columns | None = None
    teach_test: bool = False
    owners: list[str] | int | None = Field(None, description="keep these owners, or the first n")
    prompt_tokens: Count = 16


class ExternalConfig(BaseModel):
    """A data source of another package (entry point `dareu.sources`): its `name`, and keys that it reads itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str


def _source(tree: Any) -> str:
    name = tree.get("name") if isinstance(tree, dict) else getattr(tree, "name", None)
    return name if name in ("authors", "local") else "external"


DataConfig = Annotated[
    Annotated[AuthorsConfig, Tag("authors")]
    | Annotated[LocalConfig, Tag("local")]
    | Annotated[ExternalConfig, Tag("external")],
    Discriminator(_source),
]
