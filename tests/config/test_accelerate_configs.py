"""The files for `accelerate launch`, read by accelerate's own parser."""

from __future__ import annotations

from pathlib import Path

import pytest

from dareu.config.choices import config_folder

FOLDER = config_folder() / "accelerate"
ENGINES = {  # file → (engine, stage of ZeRO, version of FSDP)
    "ddp": ("MULTI_GPU", None, None),
    "fsdp2": ("FSDP", None, 2),
    "zero2": ("DEEPSPEED", 2, None),
    "zero3": ("DEEPSPEED", 3, None),
}


def test_every_file_is_looked_at() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(ENGINES)


@pytest.mark.parametrize("name", ENGINES)
def test_accelerate_launches_by_it(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    monkeypatch.chdir(tmp_path)
    file = str(FOLDER / f"{name}.yaml")
    command = ["--config_file", file, "-m", "dareu", "train", "method=npo", "seed=7"]
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    engine, stage, version = ENGINES[name]
    assert (defaults.distributed_type.name, args.num_processes, args.mixed_precision) == (engine, 4, "no")
    assert (args.module, args.training_script, args.training_script_args) == (
        True, "dareu", ["train", "method=npo", "seed=7"],
    )  # fmt: skip
    assert args.use_deepspeed == (stage is not None) and args.use_fsdp == (version is not None)
    if stage:
        assert args.zero_stage == stage
    if version:
        assert args.fsdp_version == version and args.fsdp_state_dict_type == "FULL_STATE_DICT"
