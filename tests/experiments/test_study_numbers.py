from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mggc_edge.benchmarks.experiments.study.numbers import MEASURES, Difference, Numbers
from mggc_edge.benchmarks.experiments.study.page import MINUS, page
from mggc_edge.benchmarks.experiments.study.table import Study, read_study
from mggc_edge.errors import InputError
from mggc_edge.quality.bootstrap import Estimate
from tests.experiments.study_helpers import TABLE, record, write_study

KID, PSNR, TRUTH = (MEASURES[index] for index in (0, 1, 3))


def records(study: Study) -> list[dict[str, Any]]:
    """Of four runs, in the order in which they might be finished; every KID is the same for all six pictures."""
    found = []
    for row, seed, kid, psnr in (("theirs", 1, 40.0, 11.0), ("ours", 0, 10.0, 14.0), ("theirs", 0, 30.0, 12.0)):
        flags = next(list(study.flags(run)) for run in study.runs if (run.row.name, run.seed) == (row, seed))
        one = record(row, seed, flags, compressed={"kid": [kid] * 6, "psnr_to_original": [psnr, psnr + 1] * 3})
        one["test"]["original"] = {"kid": [20.0] * 6}
        found.append(one)
    return found


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(write_study(tmp_path))


def test_a_row_is_the_mean_over_its_seeds_and_pictures(study: Study) -> None:
    numbers = Numbers(study, records(study))
    ours, theirs = study.rows
    assert numbers.mean(ours, KID) == Estimate(10.0, (10.0, 10.0))
    assert numbers.mean(theirs, KID) == Estimate(35.0, (30.0, 40.0))
    assert numbers.seed_means(theirs, PSNR) == [12.5, 11.5]
    assert numbers.original(KID) == Estimate(20.0, (20.0, 20.0))
    assert (numbers.original(PSNR), numbers.mean(ours, TRUTH)) == (None, None)
    assert numbers.measures() == (KID, PSNR)


def test_a_difference_is_paired_by_picture_and_seed_over_the_seeds_of_both_rows(study: Study) -> None:
    kid, psnr = Numbers(study, records(study)).differences()
    assert (kid.row, kid.against, kid.seeds, kid.estimate) == ("ours", "theirs", 1, Estimate(-20.0, (-20.0, -20.0)))
    assert psnr.estimate == Estimate(2.0, (2.0, 2.0))  # though each row by itself spreads over its pictures
    assert (kid.verdict, psnr.verdict) == ("better", "better")


def test_every_row_is_compared_with_the_original_where_that_has_a_value(study: Study) -> None:
    found = Numbers(study, records(study)).against_original()
    assert [(d.row, d.measure.name, d.seeds, d.estimate.value, d.verdict) for d in found] == [
        ("ours", "kid", 1, -10.0, "better"), ("theirs", "kid", 2, 15.0, "worse"),
    ]  # fmt: skip


def test_rows_that_are_compared_with_the_one_before_come_in_pairs(tmp_path: Path) -> None:
    chain = read_study(write_study(tmp_path, TABLE.replace('compare = "ours"', 'compare = "previous"')))
    assert [(a.name, b.name) for a, b in chain.pairs()] == [("theirs", "ours")]


def test_the_verdict_follows_from_both_ends_of_the_interval() -> None:
    ends = ((0.1, 1.0), (-1.0, -0.1), (-1.0, 1.0), (0.0, 1.0), None)
    found = [[Difference("a", "b", m, Estimate(0.0, one), 1).verdict for one in ends] for m in (PSNR, KID)]
    assert found == [["better", "worse", "", "", ""], ["worse", "better", "", "", ""]]


def test_means_of_few_pictures_stand_without_intervals(study: Study, tmp_path: Path) -> None:
    found = records(study)
    for one in found:
        for side in one["test"]["compressed"], one["test"]["original"]:
            side.update({name: values[:2] for name, values in side.items()})
    text = page(study, Numbers(study, found), None)
    assert "| Ours | 1 | 0.0490 | 10 | 14.50 | 15.00 | 0.500 | 2.0 |" in text
    assert f"| Ours | Theirs | 1 | {MINUS}20 | 2.00 |" in text
    pytest.importorskip("matplotlib")
    from mggc_edge.benchmarks.experiments.study.figure import draw

    assert draw(study, Numbers(study, found), tmp_path / "few.svg")


def test_sizes_are_shown_where_a_row_has_fewer_bits(study: Study) -> None:
    found = records(study)
    assert "times smaller" not in page(study, Numbers(study, found), None)
    for one, (channels, bits) in zip(found, ((2.0, 1.0), (6.0, 4.0), (3.0, 1.0)), strict=True):
        one["size"] = {"disk": {"ratio": channels * bits, "channels": channels, "bits": bits}}
    text = page(study, Numbers(study, found), None)
    assert "| row | seeds | MACs kept | times smaller on disk = channels x bits | KID |" in text
    assert "| the original | \u2013 | 1 | 1 | 20 [20, 20] |" in text
    assert "| Ours | 1 | 0.0490 | 24.0 = 6.00 x 4.00 | 10 [10, 10] |" in text
    assert "| Theirs | 2 | 0.0490 | 2.5 = 2.50 x 1.00 |" in text
    found[0]["size"] = None  # of an older record
    assert "| Theirs | 2 | 0.0490 | \u2013 |" in page(study, Numbers(study, found), None)


def test_other_test_pictures_are_never_paired(study: Study) -> None:
    found = records(study)
    found[1]["test"]["names_sha256"] = "1"
    with pytest.raises(InputError, match="ours and theirs were tested on different pictures with the seed 0"):
        Numbers(study, found).differences()


def test_a_picture_without_a_value_leaves_its_row_without_one(study: Study) -> None:
    found = records(study)
    found[0]["test"]["compressed"]["kid"] = [*[40.0] * 5, None]
    assert Numbers(study, found).mean(study.row("theirs"), KID) is None
    assert Numbers(study, found).seed_means(study.row("theirs"), KID) == [30.0]


def test_rows_tested_on_unlike_numbers_of_pictures_are_refused(study: Study) -> None:
    found = records(study)
    found[0]["test"]["compressed"]["kid"] = [40.0]
    with pytest.raises(InputError, match="tested on different numbers of pictures"):
        Numbers(study, found).mean(study.row("theirs"), KID)


def test_what_differs_between_rows_is_read_from_their_settings_and_logs(study: Study) -> None:
    found = records(study)
    found[0]["settings"]["finetune.epochs"] = 3.0
    assert Numbers(study, found).differing() == {
        "finetune.epochs": {"ours": 2.0, "theirs": [2.0, 3.0]},
        "request.method": {"ours": "ours", "theirs": "theirs"},
        "steps of prune": {"ours": 10, "theirs": None},
    }


def test_a_setting_that_is_younger_than_the_runs_of_a_row_is_no_difference(study: Study) -> None:
    found = records(study)
    known = Numbers(study, found).differing()
    for one in found:
        if one["row"] == "ours":
            one["settings"]["younger"] = 1
    assert Numbers(study, found).differing() == known
    rows = tuple(replace(row, flags=(*row.flags, "--set", "younger=1")) for row in study.rows if row.name == "ours")
    given = replace(study, rows=(*rows, *(row for row in study.rows if row.name != "ours")))
    assert Numbers(given, found).differing() == known | {"younger": {"ours": 1, "theirs": None}}


def test_the_page_holds_the_numbers_of_the_results(study: Study) -> None:
    text = page(study, Numbers(study, records(study)), "a-study.svg")
    for line in (
        "# A study",
        "**3 of 4 runs are finished**; missing: ours-1.",
        "![Means with their 95 % intervals, and the mean of every seed](a-study.svg)",
        (
            "| row | seeds | MACs kept | KID | PSNR to the original, dB | held-out PSNR, dB "
            "| held-out distance | minutes |"
        ),
        "| the original | \u2013 | 1 | 20 [20, 20] | \u2013 | \u2013 | \u2013 |",
        "| Ours | 1 | 0.0490 | 10 [10, 10] | 14.50 [14.17, 14.83] | 15.00 | 0.500 | 2.0 |",
        "| row | minus | seeds | KID | PSNR to the original, dB |",
        "| Ours | Theirs | 1 | \u221220 [\u221220, \u221220] **better** | 2.00 [2.00, 2.00] **better** |",
        "| Ours | the original | 1 | \u221210 [\u221210, \u221210] **better** | \u2013 |",
        "| `request.method` | ours | theirs |",
        "| `steps of prune` | 10 | \u2013 |",
        "| discriminator's MACs kept | 0.250 | 1 |",
        "Steps of finetuning: 20 in every run.",
        "Machine: a processor, 2 cores. Versions: torch 2.13.0, mggc-edge 0.1.0.",
    ):
        assert line in text, text


def test_the_page_says_where_a_run_had_other_steps_of_finetuning(study: Study) -> None:
    found = records(study)
    found[0]["steps"]["finetune"] = 21
    assert "**Not every run had as many steps of finetuning.**" in page(study, Numbers(study, found), None)


def test_the_page_counts_steps_of_slimming_where_finetuning_takes_as_many_fewer(study: Study) -> None:
    found = records(study)
    for one in found:
        slims = one["row"] == "ours"
        one |= {
            "steps": {"prune": 10, "finetune": 20 if slims else 30},
            "slimming": {} if not slims else {"channels": 9},
        }
    said = "Steps that train the generator, in slimming and in finetuning: 30 in every run."
    assert said in page(study, Numbers(study, found), None)
    found[0]["steps"]["finetune"] = 31
    assert "**Not every run had as many steps of finetuning.**" in page(study, Numbers(study, found), None)


def test_a_study_without_runs_has_a_page_too(study: Study) -> None:
    text = page(study, Numbers(study, []), None)
    assert "**0 of 4 runs are finished**" in text
    assert "## Results" not in text


def test_the_picture_is_the_same_file_for_the_same_numbers(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from mggc_edge.benchmarks.experiments.study.figure import draw

    numbers = Numbers(study, records(study))
    for name in ("a.svg", "b.svg"):
        assert draw(study, numbers, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert not draw(study, Numbers(study, []), tmp_path / "c.svg")
    assert not (tmp_path / "c.svg").exists()


def test_the_mean_of_seeds_is_an_average_of_their_pictures(study: Study) -> None:
    found = records(study)
    found[2]["test"]["compressed"]["psnr_to_original"] = [12.0, 18.0] * 3
    mean = Numbers(study, found).mean(study.row("theirs"), PSNR)
    assert mean is not None
    assert mean.value == pytest.approx(np.mean([[12.0, 18.0], [11.0, 12.0]]))
