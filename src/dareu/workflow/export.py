"""A finished run's model for others: merged weights, a GGUF file, a repository on the Hugging Face hub."""

import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from dareu.errors import ConfigError, RunError, check_folder, first_line
from dareu.models.files import ADAPTER, adapter_base
from dareu.report.loading import read_results, run_config
from dareu.report.model_card import model_card, public_results
from dareu.runs.files import check_writable, unwritable, write_json, write_text, writing_to
from dareu.runs.owned import own_files
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.loading import BASE_NOTE

CONVERTER = "convert_hf_to_gguf"  # of llama.cpp
Form = Literal["merged", "gguf"]


def export(run: str | Path, form: Form = "merged", out: str | Path | None = None) -> dict[str, str]:
    """Write the unlearned model of a run folder as one folder that needs no base beside it.

    Args:
        run: A finished run folder.
        form: merged: weights as safetensors; gguf: these, and a GGUF file made of them where llama.cpp's converter is
            found, on the PATH or as a module.
        out: A new or empty folder; None: the run's name with `-merged` or `-gguf`, beside it.

    Returns:
        `model`: the folder; with gguf also `gguf`, the file, or `command`, what makes it where there is no converter.

    Raises:
        RunError: `run` holds no model, `out` holds something or cannot be written, or the converter fails.
    """
    model = _model_of(run)
    target = (
        Path(out).expanduser() if out else Path(run).resolve().with_name(f"{Path(run).resolve().name}-{form}")
    )
    _check_vacant(target)
    check_writable(target, cure="Give another folder: --out FOLDER.")
    # Written beside its place: what was interrupted never looks whole, and of two commands the second is refused.
    with writing_to(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as partial:
        write_merged(model, Path(partial) / "model", run_config(Path(run)))
        try:
            (Path(partial) / "model").replace(target)
        except OSError as error:
            _check_vacant(target)
            raise unwritable(target, error) from None
    made = {"model": str(target)}
    if form == "merged":
        return made
    file = target / "model.gguf"
    arguments = [str(target), "--outfile", str(file)]
    converter = _converter()
    if converter is None:
        return made | {"command": shlex.join([f"{CONVERTER}.py", *arguments])}
    done = subprocess.run([*converter, *arguments], capture_output=True, text=True, check=False)
    if done.returncode or not file.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RunError(
            f"llama.cpp's converter failed: {said[-1] if said else f'exit code {done.returncode}'}.",
            f"The merged weights are in {target}; does this version of llama.cpp know the model?",
        )
    return made | {"gguf": str(file)}


def _check_vacant(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"{target} holds something already.", "Give a new or an empty folder: --out FOLDER.")


def write_merged(model: Path, target: Path, config: dict[str, Any]) -> None:
    """Load a run's model folder, fold an adapter into its base, and save all of it to `target`."""
    with quiet_libraries():
        from dareu.models.load import is_peft, load_model, save_model
        from dareu.models.lora import fold

        read = config.get("model") or {}
        loaded, tokenizer = load_model(
            model,
            dtype=str(read.get("dtype") or "float32"),
            trust_remote_code=bool(read.get("trust_remote_code")),
        )
        save_model(fold(loaded, model) if is_peft(loaded) else loaded, tokenizer, target)


def publish(
    run: str | Path, repository: str, merge: bool = False, private: bool = True, api: Any = None
) -> dict[str, Any]:
    """Put the unlearned model of a run on the Hugging Face hub, with its figures and a card that name no owner.

    Args:
        run: A finished run folder.
        repository: Such as "user/name"; made where it is missing.
        merge: Put an adapter's weights into its base first.
        private: Whether a repository that is made now is private.
        api: A `huggingface_hub.HfApi`; None: one with the token of `hf auth login`.

    Returns:
        `repository`, `url`, and the `files` that were sent.

    Raises:
        ConfigError: Nobody is logged in, or an adapter's base is a folder of this machine.
        RunError: `run` is not finished, or the hub refuses or cannot be reached.
    """
    model = _model_of(run)
    results = public_results(read_results(Path(run)))
    adapter = (model / ADAPTER).is_file() and not merge
    base = _hub_base(model, run_config(Path(run)))
    if adapter and base is None:
        raise ConfigError(
            f"The adapter in {model} stands on a model folder of this machine, which nobody else has.",
            "Add --merge: whole weights are sent then.",
        )
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    _check_login(api)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if adapter or not (model / ADAPTER).is_file():
            _copy_own(Path(run), model, folder)
        else:
            write_merged(model, folder, run_config(Path(run)))
        write_json(folder / "results.json", results)
        write_text(folder / "README.md", model_card(results, base, adapter))
        try:
            url = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=f"Unlearned by {results.get('method')}"
            )
        except Exception as error:  # whatever the hub's client and its network layer raise
            raise RunError(
                f"{repository} could not be written on the hub: {first_line(error)}.",
                "Is the name `user/name`, may the token write there (`hf auth login`), and is there a network?",
            ) from error
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return {"repository": repository, "url": str(url), "files": files}


def _copy_own(run: Path, model: Path, target: Path) -> None:
    """The files of `model` that the run wrote; what somebody else put there is not for others."""
    own = [path for path in own_files(run) if model in path.parents and path.name != BASE_NOTE]
    if not own:
        raise RunError(
            f"{model} holds no file that a run wrote.", "Links are not followed: copy the run folder whole."
        )
    for path in own:
        copy = target / path.relative_to(model)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _model_of(run: str | Path) -> Path:
    cure = "Give the folder that `dareu train` named."
    model = check_folder(run, cure, what="run folder") / "model"
    if not (model / ADAPTER).is_file() and not (model / "config.json").is_file():
        raise RunError(f"{run} is no finished run: it has no model/.", cure)
    return model


def _hub_base(model: Path, config: dict[str, Any]) -> str | None:
    """Hub id of the base; None where it is a folder or the built-in model."""
    adapter = (model / ADAPTER).is_file()
    name = adapter_base(model)[0] if adapter else str((config.get("model") or {}).get("path") or "")
    local = Path(name).is_absolute() or Path(name).exists()
    return name if name.count("/") == 1 and not local else None


def _converter() -> list[str] | None:
    """The command of llama.cpp's converter; None where it is not found."""
    script = shutil.which(f"{CONVERTER}.py")
    if script is not None:
        return [sys.executable, script]
    return [sys.executable, "-m", CONVERTER] if find_spec(CONVERTER) is not None else None


def _check_login(api: Any) -> None:
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        api.whoami()
    except (LocalTokenNotFoundError, HfHubHTTPError) as error:
        raise ConfigError(
            "You are not logged in to the Hugging Face hub, or your token is no longer valid.",
            "`hf auth login`, or a token that may write in $HF_TOKEN.",
        ) from error
    except Exception as error:  # of the network layer
        raise RunError(
            f"The Hugging Face hub cannot be reached: {first_line(error)}.",
            "Check the network; `dareu export` writes the model to a folder without it.",
        ) from error
