"""The two parts of an evaluation: one that settings are chosen on, and one that is reported."""

from dataclasses import replace
from typing import Literal

from dareu.data.corpus import Split
from dareu.data.split import holdout
from dareu.errors import DataError

Part = Literal["all", "validation", "report"]
SEED = 0  # of the cut: the same for every method and seed of a run


def part_of(split: Split, part: Part, share: float) -> Split:
    """`split` with only those forget, retain and test samples that belong to `part`; "all" gives `split` itself.

    A `share` in (0, 1) of each of the three sets is validation, each owner in proportion; the test set is cut too,
    so that no sample that helped to choose a setting is reported. The same samples give the same parts, whatever
    the run's seed; every owner keeps at least one sample to report. `DataError` where a part of the forget or the
    retain set would be empty. A test set of one sample is all report.
    """
    if part == "all":
        return split
    cut = {}
    for name in ("forget", "retain", "test"):
        samples = getattr(split, name)
        report, validation = holdout(samples, share, SEED) if samples else ((), ())
        if name != "test" and not (report and validation):
            raise DataError(
                f"The {name} set, {len(samples)} samples, cannot be cut into a validation and a report part.",
                "Every owner keeps one sample to report, so that some owner needs two; or set evaluation.part=all.",
            )
        cut[name] = validation if part == "validation" else report
    return replace(split, forget=cut["forget"], retain=cut["retain"], test=cut["test"])
