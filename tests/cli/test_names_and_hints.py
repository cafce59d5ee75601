"""What is named and not used is an error; hints at the key that was meant; recommended settings of an experiment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline_fixture import LOSS, SMALL, process, store

from dareu.cli import commands
from dareu.cli.commands import main
from dareu.config.choices import methods_with
from dareu.config.compose import compose
from dareu.errors import ConfigError, nearest

__all__ = ["store"]
TOFU = ["experiment=tofu_lora", "model.path=m", "data.path=d"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("original=", "original is empty"),
        ("original=''", "original is empty"),
        ("run_dir=", "run_dir is empty"),
        ("data.path=", "data.path is empty"),
        ("experiment=", "experiment is empty"),
        ("experiment=null", "experiment= names nothing"),
        ("method=[null]", "method= names nothing"),
        ("hydra=null", "hydra= names nothing"),
        ("~method", "'~method' leaves the run without method="),
        ("experiment=foo/bar", "There is no experiment 'foo/bar'"),
        ("experiment=tofu_lora/", "There is no experiment 'tofu_lora/'. Nearest: tofu_lora"),
        ("method=npo.yaml", "There is no method 'npo.yaml'. Nearest: npo"),
        ("forget.owners=Jane Doe", r"Write 'forget.owners=\[Jane Doe\]'"),
        ("lr=1e-3", "Its full name is finetune.lr or attributor.optim.lr or method.optim.lr"),
        ("forget.owners=[null]", r"goes in quotes: \"forget.owners=\['null'\]\""),
        ("forget.owners=[Ann,true]", r"goes in quotes: \"forget.owners=\['true'\]\""),
        ("foo.bar=1", r"unknown key 'foo'. Known: seed, "),  # "forget" is no near miss
        ("method.lr=1e-3", r"unknown key 'method.lr'. Its full name is method\.optim\.lr or"),
        ("forget.owner=[Ann]", r"'forget.owner'. Nearest: forget\.owners\."),  # not data.columns.owner
        ("betaa=1", r"'betaa'. Nearest: method\.params\.beta\."),
        ("cubic=1", r"'cubic'. Its full name is method\.cubic \(a key of method=scurenewton\)\."),
        (
            "path=x",
            r"is data\.path \(.*\) or model\.path \(a key of model=hf\) or attributor\.backbone\.path\.",
        ),
        ("r=4", r"is model\.lora\.r \(a key of model=hf\) or attributor\.backbone\.lora\.r\."),
        ("method.params={foo:1}", r"'method.params.foo': method=dareu_warm takes no method\.params\."),
        ("method.params.betaa=1", r"'method.params.betaa': method=dareu_warm takes no method\.params\."),
        ("method.params.kl=1", r"is method\.reward\.kl or method\.stop\.kl\."),
    ],
)
def test_what_is_named_and_not_used_is_an_error(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose([override])


def test_names_that_differ_in_case_alone_are_all_told() -> None:
    assert nearest("nPo", ["NPO", "rmu", "npo"]) == "Nearest: NPO, npo."
    assert nearest("Jon Lee", ["jon lee", "Jon Lea", "jon lee"]) == "Nearest: jon lee, Jon Lea."


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("forget.owners={a: b", "A { has no }. forget.owners must be a list of text, or null. The shell cuts at "
         "spaces: the whole goes in its quotes, 'forget.owners=[Jane Doe,John Roe]'."),
        ("rounds=[[Ann],[Bo]", "A [ has no ]. The shell cuts at spaces: the whole goes in its quotes, "
         "'rounds=[[Jane Doe],[John Roe]]'."),
        ("data.columns={prompt: a", "'data.columns={name: one text}'."),
        ("model.lora.target_modules=[q", "'model.lora.target_modules=[one text,another]'."),
        ("method.optim.lr=[1", "A [ has no ]. method.optim.lr must be a number above 0 and at most 10."),
        ("attributor.params={a: Zoë}", """ 'attributor.params={name: "Zoë Ångström"}'."""),
        ('model.path="a', """ 'model.path="Zoë Ångström"'."""),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_read_gets_an_example_that_fits_its_key(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override])
    assert caught.value.cure.endswith(said)


def test_a_short_name_is_completed() -> None:
    with pytest.raises(ConfigError, match=r"Its full name is method\.params\.beta"):
        compose(["method=npo", "beta=0.3"])
    with pytest.raises(ConfigError, match=r"'method\.beta'. Its full name is method\.params\.beta\."):
        compose(["method=npo", "method.beta=0.3"])


@pytest.mark.parametrize("key", ["beta", "method.beta"])
def test_a_key_of_other_methods_names_them(key: str) -> None:
    with pytest.raises(
        ConfigError, match=r"is method\.params\.beta \(a key of method=altpo, idk_dpo, npo, simnpo, "
    ):
        compose([f"{key}=0.3"])
    with pytest.raises(ConfigError, match=rf"'{key}'. Its full name is method\.params\.beta \(a key of"):
        compose(values={key: 0.3})  # from Python
    with pytest.raises(ConfigError, match=r"where method\.kind=rl; it is a key of method=altpo"):
        compose(["method.params.beta=0.3"])


def test_a_key_is_that_of_a_method_which_another_begins_from(tmp_path: Path) -> None:
    """dareu_grpo begins from dareu_rloo, and that from dareu, which says that it is of kind rl; ten methods have it."""
    assert {"dareu", "dareu_rloo", "dareu_grpo"} <= set(methods_with("method.data_epochs"))
    with pytest.raises(ConfigError, match="method=dareu, dareu_grpo, .* and 2 more"):
        compose(["method=npo", "data_epochs=3"])
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("defaults: [npo, _self_]\nparams: {pull: 1}\n")
    with pytest.raises(
        ConfigError, match=r"'pull'. Its full name is method\.params\.pull \(a key of method=mine\)\."
    ):
        compose(["pull=2"], str(tmp_path))


def test_an_empty_value_from_python_is_an_error() -> None:
    with pytest.raises(ConfigError, match="original is empty"):
        compose([], values={"original": ""})


def test_a_folder_with_signs_in_its_name_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "a=b, c~d's"
    (folder / "method").mkdir(parents=True)
    (folder / "method" / "mine.yaml").write_text(
        "# Mine.\nname: mine\nkind: loss\nloss: npo\noptim: {lr: 1e-4, epochs: 1, batch_size: 4}\n"
    )
    assert compose(["method=mine"], str(folder)).method.name == "mine"


def test_an_experiment_recommends_settings_for_one_method() -> None:
    """18 data epochs for dareu; a key of the command wins; the default has its own, npo no such key."""
    alone = [*TOFU, "method=dareu"]
    assert compose(alone).method.data_epochs == 18  # type: ignore[union-attr]
    assert compose([*alone, "method.data_epochs=3"]).method.data_epochs == 3  # type: ignore[union-attr]
    assert compose(TOFU).method.data_epochs == 1  # type: ignore[union-attr]
    assert not hasattr(compose([*TOFU, "method=npo"]).method, "data_epochs")


def test_dry_run_builds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = [f"cache_dir={tmp_path / 'store'}", f"run_dir={tmp_path / 'run'}"]
    assert main(["train", *SMALL, *where, "method=npo", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    stages = plan["stages"]
    assert plan["memory_mib"]["total"] > plan["memory_mib"]["weights"] > 0 and plan["memory_warning"] is None
    assert [s["stage"] for s in stages] == [
        "base model",
        "original model",
        "retrained model",
        "attribution classifier",
        "unlearned by npo",
        *(f"evaluation of the {name} model" for name in ("original", "retrained", "unlearned")),
    ]
    assert not any(s["stored"] for s in stages) and len({s["key"] for s in stages}) == 8
    assert plan["forget"]["owners"] and plan["notes"][0].startswith("To forget: ")
    assert not list(tmp_path.iterdir())


def test_dry_run_lists_every_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = [f"cache_dir={tmp_path / 'store'}", f"run_dir={tmp_path / 'run'}"]
    assert (
        main(
            ["train", *SMALL, *where, "method=npo", "~forget.count", "rounds.count=2", "--dry-run", "--json"]
        )
        == 0
    )
    stages = [s["stage"] for s in json.loads(capsys.readouterr().out)["stages"]]
    assert stages == [
        "base model",
        "original model",
        "attribution classifier",
        *(
            f"{stage}, round {number}"
            for number in (1, 2)
            for stage in (
                "unlearned by npo",
                "retrained model",
                *(f"evaluation of the {name} model" for name in ("original", "retrained", "unlearned")),
            )
        ),
    ]


def test_a_terminated_command_says_that_it_goes_on(store: Path, tmp_path: Path) -> None:
    one = process(
        "train", *SMALL, "finetune.epochs=3000", f"cache_dir={tmp_path}/s", f"run_dir={tmp_path}/r", *LOSS,
        "method=npo",
    )  # fmt: skip
    end = time.monotonic() + 120
    while time.monotonic() < end and not list(tmp_path.glob("s/.work/original/*")):
        time.sleep(0.1)
    time.sleep(1)
    one.terminate()
    _, told = one.communicate(timeout=60)
    assert one.returncode == 143 and "terminated; the same command continues" in told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_python_drops_ends_the_command_all_the_same(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Deleted:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def work(_: object) -> int:
        Deleted()  # the handler's exception is raised in __del__, where Python drops it
        time.sleep(20)
        return 0

    monkeypatch.setitem(commands.COMMANDS, "configs", work)
    before = sys.unraisablehook
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        assert main(["configs"]) == code
    finally:
        signal.signal(signal.SIGINT, usual)
    assert "the same command continues" in capsys.readouterr().err
    assert sys.unraisablehook is before


def test_signs_that_the_terminal_lacks_are_written_in_others() -> None:
    show = r"main([]); Console().print('\u2713 3 \u00b1 1 \u2026 Zo\u00eb')"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from dareu.cli import main; from dareu.workflow.console import Console; {show}",
        ],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        check=True,
    )
    assert done.stderr == b"ok 3 +- 1 ... Zo\\xeb\n"


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    worker = "import os, sys, time\nfrom dareu.workflow.jobs import end_with_parent\n"
    worker += "end_with_parent(os.getppid(), 0.1)\nprint(os.getpid(), flush=True)\ntime.sleep(120)\n"
    (tmp_path / "worker.py").write_text(worker)
    parent = (
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, {str(tmp_path / 'worker.py')!r}]).wait()"
    )
    one = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert one.stdout is not None
    pid = int(one.stdout.readline())
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # ended, and not yet collected
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the worker outlived its parent")


@pytest.mark.parametrize(
    ("command", "cause", "cure"),
    [
        ("trian", "There is no command 'trian'.", "Nearest: train."),
        ("export RUN --format onnx", "There is no --format 'onnx'.", "Known: merged, gguf."),
        ("compare", "The following arguments are required: RUN.", "See `dareu compare --help`."),
        ("--colour", "Unknown option --colour.", "See `dareu --help`."),
        (
            "train --method npo",
            "Unknown option --method.",
            "no dashes: method=VALUE. See `dareu train --help`.",
        ),
        ("train model=a/b", "There is no model 'a/b'.", "Write model=hf model.path=a/b, if"),
        ("train data=rows.csv", "There is no data 'rows.csv'.", "Write data=local data.path=rows.csv, if"),
        (
            "train data.pairs=3 data=sotu",
            "The configuration is not valid: unknown key 'data.pairs'",
            "Run `dareu",
        ),
        ("train npo", "'npo' cannot be read as key=value.", "Write method=npo."),
        ("train method=NPO", "There is no method 'NPO'.", "Nearest: npo"),
        (
            "train forget.owners=[Jane Doe]",
            "'forget.owners=[Jane' cannot be read",
            "The shell cuts at spaces",
        ),
        ("train method = npo", "'method' cannot be read", "Beside = there is no space."),
    ],
)
def test_a_line_that_is_written_in_another_way(
    command: str, cause: str, cure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and told[0].startswith(f"dareu: {cause}") and cure in told[1]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["receipt", "nowhere"], "There is no run folder nowhere."),
        (["receipt", "nowhere", "--verify"], "There is no run folder nowhere."),
        (["rescore", "nowhere"], "There is no file and no folder nowhere."),
        (["store", "verify", "nowhere"], "There is no folder"),
        (["export", "nowhere"], "There is no run folder nowhere."),
        (["configs", "--config-dir", "nowhere"], "There is no folder nowhere."),
        (["receipt", "file"], "file is a file, not a run folder."),
        (["receipt", "file", "--verify"], "file is a file, not a run folder."),
        (["export", "file"], "file is a file, not a run folder."),
        (["push", "file", "a/b"], "file is a file, not a run folder."),
        (["compare", "file"], "file is a file, not a folder."),
        (["evaluate", "file"], "file is a file, not a model folder."),
        (["store", "verify", "file"], "file is a file, not a folder."),
        (["configs", "--config-dir", "file"], "file is a file, not a folder."),
        (["train", "--config-dir", "file"], "file is a file, not a folder."),
        (["train", "data=tofu", "data.path=file"], "file is a file, not a folder."),
        (["train", "original=file"], "file is a file, not a model folder."),
        (["store", "verify", "."], "holds no finished stage"),
        (["configs", "npo"], "npo is a value of method="),
        (["configs", "beta"], "method.params.beta."),
        (["configs", "method=npo"], "npo is a value of method="),
    ],
)
def test_a_folder_that_is_not_there_or_is_a_file(
    command: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("hello")
    assert main(command) in (2, 3)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "key", ["data=local forget.count=1 data.path", "original", "model=hf model.path", "run_dir"]
)
def test_a_path_that_no_disk_accepts_is_one_message(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = "/" + "a" * 300
    assert main(["train", *f"{key}={name}".split(), "--dry-run" if key != "run_dir" else "threads=1"]) == 2
    told = capsys.readouterr().err
    assert f"{name}: File name too long" in told and "Check the path" in told and "Traceback" not in told


def test_evaluate_prints_its_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "nowhere", "seed=43", "--print"]) == 0
    assert "seed: 43" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method=npo", "method.scrambled=true"],
            "Nearest: method.scrambled_batch_size, method.scrambled_weight",
        ),
        (
            ["method=dareu", "method.optim.name=muon"],
            "'method.optim.name' where method.kind=rl, which trains by AdamW",
        ),
        (["method=dareu", "method.optim.epochs=3"], "data_epochs, prompts_per_batch and updates_per_batch"),
        (
            [
                "method=npo",
                "method.forget_weight=0",
                "method.retain_weight=0",
                "method.scrambled_batch_size=8",
            ],
            "rows of random words only hold the model where it is",
        ),
    ],
)
def test_keys_of_another_method_or_of_a_longer_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert message in str(caught.value)


def test_random_words_need_a_retain_term(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", *SMALL, "method=counterfactual", "method.retain=none", "--dry-run"]
    assert main(command) == 2
    assert "or retain_weight=1 and scrambled_batch_size=0" in capsys.readouterr().err
    assert main([*command, "method.retain_weight=1"]) == 2
    told = capsys.readouterr().err
    assert "stand beside retain rows" in told and "method.retain=nll, kl or js" in told


def test_rescore_of_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "is not the folder of a finished run" in told and "Errno" not in told


def test_a_users_other_files_do_not_spoil_a_message(tmp_path: Path) -> None:
    folder = tmp_path / "method"
    folder.mkdir()
    for name, text in {
        "listed": "- 1", "broken": "a: [", "number": "params: 3", "override": "defaults: [{override /model: hf}]",
        "one": "defaults: [two]", "two": "defaults: [one]", "mine": "defaults: [npo]\nparams: {extra: 2}",
    }.items():  # fmt: skip
        (folder / f"{name}.yaml").write_text(text)
    assert "mine" in methods_with("method.params.beta", str(tmp_path))
    assert methods_with("method.params.extra", str(tmp_path)) == ["mine"]


def test_the_estimate_counts_the_distillation_before_the_reinforcement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Small updates of the one leave those of the other as they are."""
    found = []
    for keys in ([], ["method.warm_start.optim.micro_batch_size=2"], ["method.warm_start=null"]):
        given = ["method=dareu_warm", "method.optim.micro_batch_size=2", *keys]
        if "method.warm_start=null" not in keys:
            given.append("method.warm_start.optim.min_steps=1")  # else batches are cut to a row or two
        command = ["train", *SMALL, *given, "--dry-run"]
        where = [f"cache_dir={tmp_path / 'store'}", f"run_dir={tmp_path / 'run'}"]
        assert main([*command, *where, "finetune.micro_batch_size=1", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["memory_mib"]["total"])
    assert found[0] > found[1] >= found[2]
