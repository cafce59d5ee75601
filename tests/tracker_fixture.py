"""What a tracker holds of a run, read from its files: curves, figures, settings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Curves = dict[str, list[tuple[int, float]]]  # "original/loss" → (step, value)


def tensorboard_run(logs: Path) -> tuple[Curves, dict[str, Any], dict[str, Any]]:
    """(curves, figures, settings) of the event files in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(logs)).Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    figures = {
        tag.removeprefix("results/"): rows[-1][1]
        for tag, rows in scalars.items()
        if tag.startswith("results/")
    }
    config: dict[str, Any] = {}
    known = events.summary_metadata
    if "_hparams_/session_start_info" in known:
        data = HParamsPluginData.FromString(known["_hparams_/session_start_info"].plugin_data.content)
        for name, value in data.session_start_info.hparams.items():
            config[name] = getattr(value, str(value.WhichOneof("kind")))
    return {t: rows for t, rows in scalars.items() if not t.startswith("results/")}, figures, config


def wandb_run(logs: Path) -> tuple[Curves, dict[str, Any], dict[str, Any]]:
    """(curves, figures, settings) of all offline runs in a folder, in the order in which they are synced."""
    from wandb.proto.wandb_internal_pb2 import Record

    curves: Curves = defaultdict(list)
    figures: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for file in sorted(logs.glob("wandb/offline-run-*/*.wandb")):
        for data in _records(file.read_bytes()):
            record = Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "history":
                row = {
                    (i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item
                }
                for key, value in row.items():
                    curve = key.rpartition("/")[0]
                    if curve and not key.endswith("/step"):
                        curves[key].append((row[f"{curve}/step"], value))
            elif kind == "summary":
                for i in record.summary.update:
                    name = i.key or "/".join(i.nested_key)
                    if name.startswith("results/"):
                        figures[name.removeprefix("results/")] = json.loads(i.value_json)
            elif kind == "run":
                config |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
    return dict(curves), figures, config


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a wandb file: LevelDB's log format, blocks of 32 KiB, after a header of 7 bytes."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if kind not in (1, 2, 3, 4) or at + 7 + size > len(data):  # cut by a kill
            return
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def trackio_run(project: str, name: str) -> tuple[Curves, dict[str, Any], dict[str, Any]]:
    """(curves, figures, settings) of a run in trackio's database."""
    from trackio.sqlite_storage import SQLiteStorage

    curves: Curves = defaultdict(list)
    figures: dict[str, Any] = {}
    for row in SQLiteStorage.get_logs(project, name):
        for key, value in row.items():
            if key.startswith("results/"):
                figures[key.removeprefix("results/")] = value
            elif "/" in key:
                curves[key].append((row["step"], value))
    return dict(curves), figures, SQLiteStorage.get_run_config(project, name) or {}
