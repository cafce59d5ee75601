"""Figures from records alone: the published logs to 1e-4, our own records, and logs that are not as they should be."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_fixture import make_results, write_run
from rich.console import Console
from shared_data import shared

from dareu.cli import main
from dareu.errors import ConfigError, DataError, RunError
from dareu.evaluation.rescore.rescore import read_log, rescore
from dareu.report.rescore_tables import print_rescored
from dareu.runs.files import read_jsonl, write_json, write_jsonl
from dareu.workflow.rescore import in_open_unlearning

LLAMA = "Llama-3.2-1B-Instruct"
CLOSE = 1e-4


@pytest.mark.parametrize("which", ["full", "retain90"])
def test_every_figure_of_open_unlearnings_logs(which: str) -> None:
    folder = shared("open_unlearning_eval")
    retrained = folder / f"{LLAMA}_retain90.json" if which == "full" else None
    results, _ = rescore(folder / f"{LLAMA}_{which}.json", retrained)
    assert len(results["parity"]) == (31 if which == "full" else 29)
    assert [name for name, one in results["parity"].items() if not one["same"]] == []
    expected = json.loads((folder / f"{LLAMA}_{which}_summary.json").read_text())
    for name, value in expected.items():
        assert results["parity"][name]["computed"] == pytest.approx(value, rel=CLOSE), name
    assert results["models"]["unlearned"]["membership"]["min_k_40"] == pytest.approx(
        expected["mia_min_k"], rel=CLOSE
    )
    assert results["unread"] == []


@pytest.mark.parametrize("which", ["full", "retain90"])
def test_every_figure_of_tofus_logs(which: str) -> None:
    folder = shared("tofu_logs")
    expected = json.loads((folder / "llama2-7b_expected.json").read_text())
    results, _ = rescore(folder / f"llama2-7b_{which}.json", folder / "llama2-7b_retain90.json")
    model = results["models"]["unlearned"]
    for name, figures in expected[which]["sets"].items():
        ours = {k: model[name][k] for k in ("probability", "truth_ratio")} | {
            "rouge_l": model[name]["rouge_l"]
        }
        assert ours == pytest.approx(figures, rel=CLOSE), name
    assert model["model_utility"] == pytest.approx(expected[which]["model_utility"], rel=CLOSE)
    if which == "full":
        theirs = expected["forget_quality_full_against_retain90"]
        ours = results["forget_quality"]
        assert (
            ours["log10_p"]
            == pytest.approx(theirs["log10_p"], rel=CLOSE)
            == pytest.approx(-20.7366, abs=1e-3)
        )
        assert ours["statistic"] == pytest.approx(theirs["statistic"], rel=CLOSE)
    else:  # the retrained model beside itself
        assert results["forget_quality"]["p"] == 1.0
        assert results["damage"]["retain"]["value"] == 0.0
    assert results["definitions"]["truth_ratio"] == "geometric"


AGGREGATED = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}


def aggregated(tree: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The lists of rows as TOFU's code writes them: a file a set, a dict by index a field."""
    names = {
        "avg_gt_loss": "gt_loss",
        "avg_paraphrased_loss": "paraphrased_loss",
        "average_perturb_loss": "perturbed_losses",
        "rougeL_recall": "rouge_l_recall",
    }
    files = {}
    for of, listed in tree.items():
        columns = {new: {str(i): row[old] for i, row in enumerate(listed)} for new, old in names.items()}
        texts = {str(i): [row["prompt"], row["generated"], row["gold"]] for i, row in enumerate(listed)}
        files[AGGREGATED[of]] = columns | {"generated_text": texts}
    return files


def test_what_tofus_code_writes_gives_the_same_figures(tmp_path: Path) -> None:
    folder = shared("tofu_logs")
    lists = [folder / f"llama2-7b_{which}.json" for which in ("full", "retain90")]
    files = []
    for path in lists:
        (tmp_path / path.stem).mkdir()
        tree = aggregated(json.loads(path.read_text()))
        files.append(save(tmp_path / path.stem / "eval_log_aggregated.json", tree))
    theirs, ours = rescore(*lists)[0], rescore(*files)[0]
    assert ours["models"] == theirs["models"] and ours["unread"] == []
    assert ours["forget_quality"]["log10_p"] == pytest.approx(-20.7366, abs=1e-3)
    assert ours["models"]["unlearned"]["model_utility"] == pytest.approx(0.6226774, rel=CLOSE)


def test_one_file_of_tofus_code_alone(tmp_path: Path) -> None:
    tree = aggregated({"forget": rows(2)})["eval_log_forget.json"]
    tree["generated_text"] = list(tree["generated_text"].values())  # as a list, in some versions
    results, records = rescore(save(tmp_path / "eval_log_forget.json", tree))
    assert results["n"] == {"forget": 2} and records["unlearned"][1]["response"] == "number 1"
    with pytest.raises(DataError, match="its name does not say of which set"):
        rescore(save(tmp_path / "log.json", tree))
    with pytest.raises(DataError, match="no values by index in rougeL_recall"):
        rescore(save(tmp_path / "eval_log_forget.json", tree | {"rougeL_recall": 0.5}))


def test_the_arithmetic_mean_is_a_key_away() -> None:
    folder = shared("tofu_logs")
    both = (folder / "llama2-7b_full.json", folder / "llama2-7b_retain90.json")
    results, _ = rescore(*both, truth_ratio="arithmetic")
    assert results["forget_quality"]["log10_p"] == pytest.approx(-22.22, abs=0.01)
    assert results["definitions"]["truth_ratio"] == "arithmetic"
    with pytest.raises(ConfigError, match="harmonic"):
        rescore(*both, truth_ratio="harmonic")


def test_another_definition_is_named_with_the_key_that_gives_theirs() -> None:
    log = shared("open_unlearning_eval") / f"{LLAMA}_full.json"
    one = rescore(log, truth_ratio="arithmetic")[0]["parity"]["forget_truth_ratio"]
    assert not one["same"] and "truth_ratio=open-unlearning" in one["note"]


def test_knowledge_left_between_the_two_published_models() -> None:
    folder = shared("open_unlearning_eval")
    full, retrained = (folder / f"{LLAMA}_{which}.json" for which in ("full", "retain90"))
    left = rescore(full, retrained, full)[0]["knowledge_left"]
    assert {"rouge_l", "probability", "truth_ratio", "extraction_strength", "membership_min_k_40"} <= set(
        left
    )
    assert all(one["value"] == pytest.approx(1.0) for one in left.values() if one["value"] is not None)
    gone = rescore(retrained, retrained, full)[0]
    assert gone["knowledge_left_worst"]["value"] == pytest.approx(0.0)


def rows(count: int = 4, shift: float = 0.0) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"[INST] Who {i}? [/INST]",
            "gold": f"number {i} is here",
            "generated": f"number {i}",
            "rouge_l_recall": 0.5,
            "gt_loss": 1.0 + shift,
            "paraphrased_loss": 1.0,
            "perturbed_losses": [2.0, 3.0 + i],
        }
        for i in range(count)
    ]


def save(path: Path, tree: Any) -> Path:
    path.write_text(json.dumps(tree))
    return path


def test_a_log_with_holes(tmp_path: Path) -> None:
    """Missing sections, NaN, null, one set alone: what can be computed is, the rest is a gap with a reason."""
    broken = rows()
    broken[0]["gt_loss"] = math.nan
    broken[1]["perturbed_losses"] = [1.0, math.inf]
    del broken[2]["paraphrased_loss"]
    broken[3]["generated"] = None
    results, _ = rescore(save(tmp_path / "a.json", {"forget": broken}))
    model, missing = results["models"]["unlearned"], results["missing"]
    assert results["n"] == {"forget": 4}
    assert model["forget"]["probability"] == pytest.approx(math.exp(-1))
    assert missing["unlearned.forget.probability"].startswith("1 of 4 samples")
    # rows 0 and 2 (whose reference stands in for the paraphrase) and 3 have a truth ratio
    ratios = [math.exp(-2.5 + 1), math.exp(-3.5 + 1), math.exp(-4 + 1)]
    assert model["forget"]["truth_ratio"] == pytest.approx(sum(ratios) / 3)
    assert model["forget"]["rouge_l"] == pytest.approx(0.5)
    assert model["model_utility"] is None and "real_authors.rouge_l" in missing["unlearned.model_utility"]
    assert "knowledge_left" in missing and results["forget_quality"] is None


def test_open_unlearnings_layout_with_holes(tmp_path: Path) -> None:
    tree = {
        "forget_Q_A_Prob": {
            "agg_value": None,
            "value_by_index": {"0": {"prob": 0.5}, "7": {"avg_loss": 1.0}, "8": None},
        },
        "forget_Q_A_gibberish": {"agg_value": 0.5, "value_by_index": {"0": {"score": 0.5}}},
        "mia_loss": {"agg_value": 0.5, "forget": {"agg_value": 1.0}, "holdout": None},
        "config": {"model": "x"},
    }
    results, records = rescore(save(tmp_path / "TOFU_EVAL.json", tree))
    assert [r["index"] for r in records["unlearned"]] == [0, 7]
    assert results["models"]["unlearned"]["forget"]["probability"] == pytest.approx((0.5 + math.exp(-1)) / 2)
    assert results["unread"] == ["forget_Q_A_gibberish"]
    assert results["parity"]["mia_loss"]["computed"] is None and results["parity"]["mia_loss"]["note"]


def answers(right: float, wrong: float, count: int = 4) -> dict[str, Any]:
    """The sections of two sets of questions whose answers have these NLLs, with their aggregates by hand."""
    epsilon, p, q = 1e-10, math.exp(-right), math.exp(-wrong)

    def section(value: float, **row: Any) -> dict[str, Any]:
        return {"agg_value": value, "value_by_index": {str(i): row for i in range(count)}}

    ratio, normalised = q / (p + epsilon), p / (p + 3 * q + epsilon)
    return {
        "wf_Q_A_Prob": section(p, prob=p, avg_loss=right),
        "wf_Q_A_PERT_Prob": section(q, prob=[q] * 3, avg_loss=[wrong] * 3),
        "wf_Q_A_Prob_normalised": section(normalised, prob=normalised),
        "wf_Truth_Ratio": section(max(0.0, 1 - ratio), score=ratio),
        "forget_Q_A_PARA_Prob": section(p, prob=p, avg_loss=right),
        "forget_Q_A_PERT_Prob": section(q, prob=[q] * 3, avg_loss=[wrong] * 3),
        "forget_truth_ratio": section(min(ratio, 1 / ratio), score=ratio),
    }


@pytest.mark.parametrize(("right", "wrong"), [(0.1, 3.0), (20.0, 22.0), (24.0, 23.0), (80.0, 81.0)])
def test_open_unlearnings_figures_of_models_that_find_all_answers_unlikely(
    tmp_path: Path, right: float, wrong: float
) -> None:
    """Its 1e-10 in each denominator counts where all options are unlikely, as of a model that fell apart."""
    results, _ = rescore(save(tmp_path / "TOFU_EVAL.json", answers(right, wrong)))
    assert len(results["parity"]) == 7
    assert {name: one for name, one in results["parity"].items() if not one["same"]} == {}


def test_muse_logs_of_open_unlearning(tmp_path: Path) -> None:
    def section(value: float, **row: Any) -> dict[str, Any]:
        return {"agg_value": value, "value_by_index": {str(i): row for i in range(3)}}

    tree = {
        "forget_knowmem_ROUGE": section(0.4, rougeL_f1=0.4, rougeL_recall=0.9, generation="x"),
        "retain_knowmem_ROUGE": section(0.5, rougeL_f1=0.5, rougeL_recall=0.9, generation="x"),
        "forget_verbmem_ROUGE": section(0.6, rougeL_f1=0.6, rougeL_recall=0.9, generation="x"),
        "extraction_strength": section(0.2, score=0.2),
        "mia_min_k": {
            "agg_value": 1.0,
            "forget": section(1.0, score=1.0),
            "holdout": section(2.0, score=2.0),
        },
        "privleak": {"agg_value": -100.0},
    }
    results, _ = rescore(save(tmp_path / "MUSE_EVAL.json", tree))
    assert {name: one for name, one in results["parity"].items() if not one["same"]} == {}
    forget = results["models"]["unlearned"]["forget"]
    assert (forget["knowmem"], forget["verbmem"]) == (pytest.approx(0.4), pytest.approx(0.6))
    assert results["unread"] == [] and len(results["parity"]) == 6


def test_why_a_figure_of_the_log_is_not_ours(tmp_path: Path) -> None:
    tree = answers(1.0, 2.0)
    share = math.exp(-1) / (math.exp(-1) + math.exp(-2))
    tree["forget_truth_ratio"] = {"agg_value": share, "value_by_index": {"0": {"score": share}}}
    tree["wf_Truth_Ratio"]["agg_value"] = 0.123
    tree["forget_Q_A_gibberish"] = {"agg_value": 0.9, "value_by_index": {"0": {"score": 0.9}}}
    tree["forget_Q_A_Prob"] = {"agg_value": 0.9}
    parity = rescore(save(tmp_path / "TOFU_EVAL.json", tree))[0]["parity"]
    notes = {name: one["note"] for name, one in parity.items() if not one["same"]}
    assert "prob_mean" in notes.pop("forget_truth_ratio")
    assert notes == {
        "wf_Truth_Ratio": "",
        "forget_Q_A_gibberish": "dareu reads no such section",
        "forget_Q_A_Prob": "the log does not hold the samples behind it",
    }


def test_titles_are_those_of_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    """Two metrics are called `exact`: greedy answers in `forget`, the leak's curve in `leak`."""
    tree = {"forget": {"n": 9, "exact": 0.39}, "retain": {"n": 9, "exact": 0.9}}
    results = {
        "models": {"unlearned": tree | {"leak": {"exact": {"1": 0.2, "8": 0.49}}, "model_utility": 0.5}},
        "layout": "dareu",
        "definitions": {"truth_ratio": "arithmetic"},
    }
    print_rescored(Console(width=120), results)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"forget: Exact answers .390", "retain: Exact answers .900", "forget: samples 9"} <= set(lines)
    assert {
        "leak: Sampled leak by k: 1 .200",
        "leak: Sampled leak by k: 8 .490",
        "Model utility .500",
    } <= set(lines)


def test_several_retrained_models_say_what_is_chance(tmp_path: Path) -> None:
    def log(name: str, loss: float) -> Path:
        return save(tmp_path / f"{name}.json", {"forget": rows(8, shift=loss - 1.0)})

    ours, original = log("ours", 1.9), log("original", 0.1)
    seeds = [log(f"r{i}", loss) for i, loss in enumerate((2.0, 1.5, 2.5))]
    left = rescore(ours, seeds, original)[0]
    figures = [math.exp(-loss) for loss in (2.0, 1.5, 2.5)]
    spread = left["retrained_seeds"]["probability"]
    assert spread["n"] == 3 and spread["mean"] == pytest.approx(sum(figures) / 3)
    alone = rescore(ours, seeds[0], original)[0]
    assert "retrained_seeds" not in alone
    one, several = (tree["knowledge_left"]["probability"] for tree in (alone, left))
    assert one["value"] == several["value"]
    assert one["low"] is None and "same value" in one["reason"]  # all samples alike, and one seed
    assert several["low"] < 0 < several["high"]
    with pytest.raises(DataError, match=r"short\.json"):
        rescore(ours, [seeds[0], save(tmp_path / "short.json", {"forget": rows(3)})])


def test_logs_of_other_samples_are_refused_with_both_named(tmp_path: Path) -> None:
    ours = save(tmp_path / "ours.json", {"forget": rows()})
    short = save(tmp_path / "short.json", {"forget": rows(3)})
    with pytest.raises(DataError, match=r"(?s)ours\.json.*short\.json.*sample 3"):
        rescore(ours, short)
    other = rows()
    other[2]["gold"] = "something else"
    with pytest.raises(DataError, match=r"(?s)ours\.json.*other\.json.*something else"):
        rescore(ours, save(tmp_path / "other.json", {"forget": other}))


def test_a_section_that_one_log_lacks_is_a_gap(tmp_path: Path) -> None:
    ours = save(tmp_path / "ours.json", {"forget": rows(), "retain": rows(), "real_authors": rows()})
    retrained = save(tmp_path / "retrained.json", {"forget": rows(), "retain": rows()})
    original = save(tmp_path / "original.json", {"retain": rows()})
    results, _ = rescore(ours, retrained, original)
    assert set(results["damage"]) == {"retain"}
    assert "original model hold no forget samples" in results["missing"]["knowledge_left"]
    assert results["forget_quality"]["p"] == 1.0


def test_own_runs_of_other_data_are_refused_with_both_keys_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", make_results(data_key="another0key"))
    with pytest.raises(DataError, match="9b1c4a77e0d25f38 and another0key"):
        rescore(tmp_path / "a", retrained=tmp_path / "b")


def test_own_runs_of_another_retrained_model_are_refused_with_both_keys_named(tmp_path: Path) -> None:
    """Some figures of a run's records, FADE among them, are relative to the retrained model that it had."""
    for name in "ab":
        write_run(tmp_path / name, make_results(model_keys={"original": "o", "retrained": f"{name}0key"}))
    with pytest.raises(DataError, match="a0key, and .*b0key") as caught:
        rescore(tmp_path / "a", retrained=tmp_path / "b")
    assert "another seed" in str(caught.value.cure)
    assert "retrained_seeds" in rescore(tmp_path / "a", [tmp_path / "a", tmp_path / "b"])[0]
    write_run(tmp_path / "old")  # its results name no models
    assert rescore(tmp_path / "old", retrained=tmp_path / "b")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("gt_loss", -0.7, "retain sample 2 has nll -0.7, which is at least 0"),
        ("perturbed_losses", [1.0, -2.0], "wrong_nlls -2"),
        ("rouge_l_recall", 70.0, "rouge_l 70, which lies between 0 and 1"),
    ],
)
def test_an_impossible_figure_is_refused_with_its_sample(
    tmp_path: Path, field: str, value: Any, said: str
) -> None:
    wrong = rows()
    wrong[2][field] = value
    with pytest.raises(DataError, match=said):
        rescore(save(tmp_path / "log.json", {"forget": rows(), "retain": wrong}))
    wrong[2][field] = rows()[2][field]
    wrong[2]["gt_loss"] = -1e-5  # the rounding of a type of numbers
    assert rescore(save(tmp_path / "log.json", {"forget": rows(), "retain": wrong}))


def test_logs_that_are_hardly_what_they_are_given_for_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    knows = [row | {"rouge_l_recall": 0.95} for row in rows()]
    forgot = [row | {"rouge_l_recall": 0.2} for row in rows(shift=1.0)]
    between = [row | {"rouge_l_recall": 0.4} for row in rows(shift=0.5)]
    asked = [row | {"prompt": f"system: be kind. {row['prompt'][7:-8]}"} for row in forgot]
    full, retrained, ours, other = (
        save(tmp_path / f"{name}.json", {"forget": listed})
        for name, listed in (("full", knows), ("retrained", forgot), ("ours", between), ("other", asked))
    )
    assert rescore(ours, retrained, full)[0]["remarks"] == []
    (swapped,) = rescore(ours, full, retrained)[0]["remarks"]
    assert "knows more of the forget set than the original" in swapped
    (same,) = rescore(retrained, retrained)[0]["remarks"]
    assert "unlearned and the retrained model's logs hold the same values" in same
    (template,) = rescore(ours, other)[0]["remarks"]
    assert "another chat template" in template and "[INST] Who" in template and "system: be k" in template
    assert main(["rescore", str(retrained), "--retrained", str(retrained)]) == 0
    assert "hold the same values" in " ".join(capsys.readouterr().out.split())


def test_a_retrained_model_that_was_trained_on_the_forget_set_is_named() -> None:
    folder = shared("open_unlearning_eval")
    full, retrained = (folder / f"{LLAMA}_{which}.json" for which in ("full", "retain90"))
    assert rescore(full, retrained)[0]["remarks"] == []
    (said,) = rescore(retrained, full)[0]["remarks"]
    assert "tell forget from held-out samples (AUC 1.00)" in said


def test_an_index_of_strange_digits_is_a_text(tmp_path: Path) -> None:
    section = {"agg_value": 0.5, "value_by_index": {"²": {"avg_loss": 1.0}, "3": {"avg_loss": 2.0}}}
    write_json(tmp_path / "log.json", {"forget_Q_A_Prob": section})
    assert [r["index"] for r in read_log(tmp_path / "log.json").records] == [3, "²"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[1, 2]", "none of the layouts"),
        ("{}", "none of the layouts"),
        ('{"forget": [1]}', "no list of rows"),
        ('{"forget": []}', "holds no samples"),
        ('{"mia_loss": {"agg_value": 1, "forget": {"value_by_index": [1]}}}', "no rows by index"),
        ('{"forget_quality": {"agg_value": 0.5}}', "holds no samples"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "log.json").write_text(content)
    with pytest.raises((DataError, RunError), match=said) as caught:
        rescore(tmp_path / "log.json")
    assert caught.value.cure
    (tmp_path / "log.jsonl").write_text(content.replace("\n", ""))
    with pytest.raises(DataError, match="no record of an evaluation"):
        rescore(tmp_path / "log.jsonl")


def test_own_records_of_an_old_run_keep_the_figures_that_they_hold(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")  # records without NLLs, as before schema version 2
    results, _ = rescore(folder)
    assert set(results["models"]) == {"original", "retrained", "unlearned"}
    assert results["definitions"]["truth_ratio"] == "arithmetic"
    forget = results["models"]["unlearned"]["forget"]
    assert forget["probability"] == 0.5 and forget["attribution"] == pytest.approx(0.01)
    assert results["missing"]["unlearned.forget.extraction_strength"] == "the records do not hold `hits`"
    single, _ = rescore(folder / "samples" / "unlearned.jsonl")
    assert single["models"]["unlearned"] == results["models"]["unlearned"]


def test_a_response_with_a_line_separator_is_one_record(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    file = folder / "samples" / "unlearned.jsonl"
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    records[0]["response"] = "one\u2028two\x85three"
    write_jsonl(file, records)
    assert len(read_jsonl(file)) == len(records)
    assert read_log(folder).records[0]["response"] == "one\u2028two\x85three"


def test_writing_open_unlearnings_layout_and_reading_it_again(tmp_path: Path) -> None:
    folder = shared("open_unlearning_eval")
    log, retrained = (folder / f"{LLAMA}_{which}.json" for which in ("full", "retain90"))
    results, records = rescore(log, retrained)
    write_json(tmp_path / "again.json", in_open_unlearning(results, records))
    again, _ = rescore(tmp_path / "again.json", retrained)
    assert again["models"]["unlearned"] == results["models"]["unlearned"]
    assert again["forget_quality"] == results["forget_quality"]
    theirs, ours = json.loads(log.read_text()), json.loads((tmp_path / "again.json").read_text())
    assert set(ours) == set(theirs)
    for name, section in theirs.items():
        assert ours[name]["agg_value"] == pytest.approx(section["agg_value"], rel=CLOSE), name
        if "value_by_index" in section:
            assert set(ours[name]["value_by_index"]) == set(section["value_by_index"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = save(tmp_path / "log.json", {"forget": rows(), "retain": rows()})
    retrained = save(tmp_path / "retrained.json", {"forget": rows(shift=1.0), "retain": rows()})
    assert main(["rescore", str(log), "--retrained", str(retrained), "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["models"]["retrained"]["forget"]["probability"] == pytest.approx(math.exp(-2))
    out = tmp_path / "deeper" / "TOFU_EVAL.json"
    command = ["rescore", str(log), "--retrained", str(retrained), "--write-open-unlearning", str(out)]
    assert main([*command, "--truth-ratio", "geometric"]) == 0
    shown = capsys.readouterr().out
    assert "Truth ratio: geometric" in shown and "forget: ROUGE" in shown
    assert "forget: Exact answers" in shown and shown.count("Not computed") == 1
    assert shown.endswith(f"In open-unlearning's layout: {out}\n")
    assert read_log(out).layout == "open-unlearning"
    assert main(["rescore", str(tmp_path / "absent.json")]) == 2
    told = capsys.readouterr().err
    assert "There is no " in told and "absent.json" in told


def test_it_loads_no_torch(tmp_path: Path) -> None:
    log = save(tmp_path / "log.json", {"forget": rows()})
    code = (
        "import sys; from dareu.cli import main; "
        f"main(['rescore', {str(log)!r}, '--json']); print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
