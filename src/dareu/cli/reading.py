"""Commands that read what is there: runs, the store, what can be chosen. Each returns the exit code."""

import argparse
from pathlib import Path

from dareu.cli.terminal import print_json
from dareu.errors import ConfigError, check_folder, printable


def compare(args: argparse.Namespace) -> int:
    """Runs in one table."""
    from dareu.cli.output import show_comparison

    if args.json:
        if given := [name for name in ("format", "sort", "out") if getattr(args, name) is not None]:
            raise ConfigError(
                f"--json does not go with --{given[0]}: it prints the runs as they are, not their table.",
                f"Leave out --json or --{given[0]}.",
            )
        from dareu.report.loading import load_runs

        print_json(load_runs([Path(p) for p in args.runs]))
    else:
        show_comparison(args.runs, args.format or "table", args.out, args.sort or "retrain_similarity")
    return 0


def store(args: argparse.Namespace) -> int:
    """Compare stored stages with their checksums."""
    from dareu.runs.store import ArtifactStore, artifact_damage

    given = args.cache_dir and args.cache_dir.removeprefix("cache_dir=")
    cure = "Give the folder that cache_dir names."
    store = ArtifactStore(check_folder(Path(given).expanduser(), cure, ConfigError) if given else None)
    artifacts = store.artifacts()
    if given and not artifacts:
        raise ConfigError(f"{store.root} holds no finished stage.", cure)
    wrong = {str(path): said for path in artifacts if (said := artifact_damage(path, checksums=True))}
    told = [f"{path}: {said}" for path, said in wrong.items()]
    told.append(f"{len(artifacts)} artifacts in {store.root}, {len(wrong)} of them damaged.")
    cure = "A run makes an artifact again where a small file or a size differs; delete the folders of the others."
    told += [cure] * bool(wrong)
    tree = {"store": str(store.root), "artifacts": len(artifacts), "damaged": wrong}
    print_json(tree) if args.json else print("\n".join(told))
    return int(bool(wrong))


def receipt(args: argparse.Namespace) -> int:
    """Write or check a deletion record."""
    from dareu.report.receipt import JSON_FILE, verify_receipt, write_receipt

    run = check_folder(args.run, "Give the folder of a finished run.", what="run folder")
    if args.verify:
        wrong = verify_receipt(run)
        said = printable("\n".join(wrong or ["Everything agrees with the deletion record."]))
        print_json({"agrees": not wrong, "changed": wrong}) if args.json else print(said)
        return int(bool(wrong))
    path = write_receipt(run, args.records)
    print((run / JSON_FILE).read_text(encoding="utf-8").rstrip() if args.json else path)
    return 0


def configs(args: argparse.Namespace) -> int:
    """What can be chosen, or what keys mean."""
    from dareu.cli.output import show_configs, show_keys

    if args.json:
        from dareu.config.choices import options
        from dareu.config.reference import lines

        names = ("key", "allowed", "default", "meaning")
        keys = [dict(zip(names, row, strict=True)) for row in lines(args.keys)] if args.keys else None
        print_json(keys or options(args.config_dir))
    elif args.keys:
        show_keys(args.keys)
    else:
        show_configs(args.config_dir)
    return 0
