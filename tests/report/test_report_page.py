"""The page: every part from the facts of a run, in one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mggc_edge.report import curves
from mggc_edge.report.facts import Latency, RunFacts
from mggc_edge.report.page import build_report, render
from mggc_edge.report.reading import read_run
from mggc_edge.report.words import headline, title
from tests.report import run_folder
from tests.report.run_folder import typed, write, write_run


class Text(HTMLParser):
    """The text of a page without its style and script, and its start tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            self.open.remove(tag)

    def handle_data(self, data: str) -> None:
        if not self.open and data.strip():
            self.words.append(typed(data.strip()))

    @property
    def text(self) -> str:
        return " | ".join(self.words)

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "horse2zebra-0.05", steps=100)


@pytest.fixture(scope="module")
def page(whole: Path) -> Text:
    return Text(render(read_run(whole)))


def test_the_headline_says_macs_latency_and_psnr_with_their_numbers(whole: Path) -> None:
    facts = read_run(whole)
    assert typed(title(facts)) == "ResNet-9 generator at 4.9 % of its MACs"
    assert typed(headline(facts)) == (
        "The compressed generator needs 20.4 times fewer MACs: 2.43 G instead of 49.6 G at 256 x 256. "
        "It runs 12.3 times faster [99 %: 11.8 to 12.8], from 842 ms to 68.4 ms a picture on x86 with ONNX Runtime in "
        "fp32. Its pictures are 27.41 dB PSNR from the original's over 106 test pictures."
    )


@pytest.mark.parametrize(
    ("latency", "words"),
    [
        (
            Latency(10.0, 9.9, 1.01, (0.97, 1.05)),
            (
                "Its latency goes from 10.0 ms to 9.90 ms a picture, a ratio of 1.01 [95 %: 0.970 to 1.05]: "
                "these samples cannot tell whether it is faster."
            ),
        ),
        (
            Latency(10.0, 20.0, 0.5, (0.4, 0.625)),
            "It runs 2.00 times slower [95 %: 1.60 to 2.50], from 10.0 ms to 20.0 ms a picture.",
        ),
        (
            Latency(30.0, 10.0, 3.0, verdict="inconclusive"),
            (
                "Its latency goes from 30.0 ms to 10.0 ms a picture, a ratio of 3.00: "
                "these samples cannot tell whether it is faster."
            ),
        ),
        (
            Latency(30.0, 10.0, 3.0),
            (
                "Its latency goes from 30.0 ms to 10.0 ms a picture, a ratio of 3.00: "
                "these samples cannot tell whether it is faster."
            ),
        ),
        (
            Latency(30.0, 10.0, 3.0, (1.5, 6.0), verdict="inconclusive"),
            (
                "Its latency goes from 30.0 ms to 10.0 ms a picture, a ratio of 3.00 [95 %: 1.50 to 6.00]: "
                "these samples cannot tell whether it is faster."
            ),
        ),
        (
            Latency(10.0, 9.8, 1.02, (1.01, 1.03), verdict="same"),
            (
                "Its latency goes from 10.0 ms to 9.80 ms a picture, a ratio of 1.02 [95 %: 1.01 to 1.03]: "
                "it is as fast as the original."
            ),
        ),
        (
            Latency(30.0, 10.0, 3.0, (2.8, 3.2), verdict="faster", ci99=(2.7, 3.3), realisation=1.5),
            (
                "It runs 3.00 times faster [99 %: 2.70 to 3.30], from 30.0 ms to 10.0 ms a picture. "
                "That is more speed than multiplications were saved, which is implausible."
            ),
        ),
        (
            Latency(
                30.0,
                10.0,
                3.0,
                (2.8, 3.2),
                verdict="inconclusive",
                ci99=(2.7, 3.3),
                reason="others took the cores",
                disturbed=("preempted",),
            ),
            (
                "Its latency goes from 30.0 ms to 10.0 ms a picture, but these samples cannot tell whether it is "
                "faster: others took the cores."
            ),
        ),
        (Latency(None, 10.0, None), ""),
    ],
)
def test_a_speed_up_is_claimed_only_as_far_as_the_samples_carry_it(whole: Path, latency: Latency, words: str) -> None:
    facts = replace(read_run(whole), latency=latency)
    said = typed(headline(facts)).split("256 x 256. ")[1].split("Its pictures")[0].strip()
    assert said == words


@pytest.mark.parametrize(
    ("changes", "tile", "row"),
    [
        (
            {"speedup": 1.31, "ci95": None, "verdict": "inconclusive"},
            "? | these samples cannot tell | 842 ms → 68.4 ms",
            "arrives as speed; these samples cannot tell whether it is faster | - | - | - |",
        ),
        (
            {"speedup": 1.02, "ci95": [1.01, 1.03], "verdict": "same"},
            "= | as fast as the original | 842 ms → 68.4 ms",
            "arrives as speed | - | - | 60 % |",
        ),
        ({}, "12.3x | faster | 842 ms → 68.4 ms", "arrives as speed | - | - | 60 % |"),
        (
            {"verdict": "inconclusive", "disturbed": ["load"], "reason": "x"},
            "? | these samples cannot tell | 842 ms → 68.4 ms",
            "| 68.4 ms | 68.0 to 68.9 | ? | MACs |",
        ),
        (
            {"verdict": "faster", "disturbed": ["load"]},  # a document that contradicts itself
            "? | these samples cannot tell | 842 ms → 68.4 ms",
            "arrives as speed; these samples cannot tell whether it is faster | - | - | - |",
        ),
        (
            {"speedup": 1.31, "ci99": [0.9, 1.8], "verdict": "inconclusive"},
            "? | these samples cannot tell | 842 ms → 68.4 ms",
            "| 68.4 ms | 68.0 to 68.9 | ? | 99 %: 0.900 to 1.80 | MACs |",
        ),
        (
            {"realisation": 1.3},
            "12.3x | faster",
            "arrives as speed; more than all of it is implausible | - | - | 130 % |",
        ),
    ],
)
def test_tile_and_realisation_say_what_the_benchmark_says(
    tmp_path: Path, changes: dict[str, object], tile: str, row: str
) -> None:
    run = write_run(tmp_path / "run", steps=3, samples=1)
    result = run_folder.result()
    result["latency"] |= changes
    write(run / "manifest.json", run_folder.manifest(result=result))
    text = Text(render(read_run(run))).text
    assert tile in text
    assert row in text


def test_the_command_stands_on_the_page_as_it_was_typed(whole: Path, page: Text) -> None:
    typed = run_folder.manifest()["command_line"]
    found = re.search(r'<code id="command">(.*?)</code>', render(read_run(whole)))
    assert found is not None
    assert re.sub("<[^>]*>", "", found[1]) == typed


def test_every_sample_is_there_in_its_four_states_as_the_bytes_of_its_file(whole: Path, page: Text) -> None:
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 8
    files = {path.read_bytes() for path in (whole / "samples").glob("*.png")}
    shown = {base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,")) for image in images}
    assert shown == files
    assert [image["alt"] for image in images[:4]] == [
        f"{column}: n02381460_1000.jpg" for column in ("Input", "Original", "Compressed", "Truth")
    ]


@pytest.mark.parametrize(
    "words",
    [
        "Latency, median | a picture on x86 with ONNX Runtime in fp32; 95 % intervals below | 842 ms | 837 to 848",
        "MACs | multiplications needed, at 256 x 256 | 49.6 G | 2.43 G | 20.4x",
        "MACs, paper | as the literature counts them | 56.8 G | 2.90 G | 19.6x",
        "Parameters | 11.4 M | 561 k | 20.3x",
        "File size | ONNX, fp32 | 45.6 MB | 2.31 MB | 19.7x",
        "Memory | peak of the process | 537 MB | 134 MB | 4.00x",
        "Realisation | part of the MACs ratio that arrives as speed | - | - | 60 %",
        "Every timed picture is a dot (96 in all, 2 threads); the line is the median.",
        "PSNR to the original | higher is closer | - | 27.41 dB",
        "Before finetuning | After finetuning | PSNR to the original, held-out pictures | from their squared error",
        "together, so not to be compared with the PSNR above | 14.83 dB | 26.98 dB",
        "SSIM to the original | 1 is equal | - | 0.9123",
        "PSNR to the truth | higher is closer | 18.02 dB | 17.64 dB",
        "KID (squeezenet fire9/concat_1) | lower is better | 0.0231 | ± 0.0042 | 0.0254 | ± 0.0044",
        "Fréchet distance (squeezenet fire9/concat_1) | not measured: it needs twice as many pictures as features | -",
        "Generator | ResNet-9: 714 of 2,944 channels, 4.9 % of the MACs (5.0 % asked for)",
        "block6.inner | 0 of 256 | removed",
        "Discriminator | PatchGAN: 297 of 960 channels, 30 % of the MACs | conv0 | 16 of 64 | 25 %",
        "Pruning | Losses | generator | discriminator | kept | Pruning: losses",
        "MACs kept | T(v) of the generator | budget 5.0 % | Pruning: MACs kept",
        "Held-out PSNR (dB)",
        "Held-out distance to the original",
        "Held-out L1 to the truth",
        "export/x86/generator.int8.onnx | x86-avx2 | onnxruntime | int8 | no: PSNR 21.4 dB to fp32, 30 dB were asked",
        "prune | 41 min 1 s",
        "mggc.lambdas | [1.0, 0.5, 0.1]",
        "onnxsim | -",
    ],
)
def test_each_part_says_what_its_file_says(page: Text, words: str) -> None:
    assert words in page.text


def test_every_chart_has_a_title_and_words_for_what_it_shows(page: Text) -> None:
    charts = sum(tag == "svg" and attributes.get("class") == "chart" for tag, attributes in page.tags)
    assert charts == 8  # encoder 1, pruning 3, finetuning 4
    assert page.count("desc") == charts + 1  # and the bars
    assert page.count("title") == 1 + charts + 2  # of the page, the charts, the bars and the strip of samples


def test_the_page_asks_for_nothing_outside_itself(whole: Path) -> None:
    facts = read_run(whole)
    text = render(facts)
    assert not re.findall(r"\bhttps?:|[\"'(=]//", text)
    sources = [value for _, given in Text(text).tags for key, value in given.items() if key in ("src", "href", "data")]
    assert sources
    assert all(str(source).startswith("data:image/png;base64,") for source in sources)
    assert not re.findall(r"@import|\burl\(|\bfetch\(|XMLHttpRequest|\bimport\(", text)


def test_its_policy_lets_the_browser_run_and_load_only_what_is_in_it(whole: Path) -> None:
    text = render(read_run(whole))
    policy = next(given["content"] for tag, given in Text(text).tags if "http-equiv" in given)
    for name, element in (("script-src", "script"), ("style-src", "style")):
        ((inner),) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'; img-src data:; ")
    assert not [given for _, given in Text(text).tags if "style" in given or any(key.startswith("on") for key in given)]


def test_text_out_of_files_stays_text(tmp_path: Path) -> None:
    evil = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"
    run = write_run(tmp_path / "<b>run", steps=3, samples=1)
    clean = Text(render(read_run(run)))
    document = run_folder.manifest(command_line=evil, settings={evil: evil}, tools={evil: evil})
    document["timings_s"] = {evil: 1.0}
    document["files"] = [{"path": evil, "size_bytes": 1}]
    document["result"] = run_folder.result(method=evil)
    document["result"]["latency"] |= {"device": evil, "runtime": evil, "precision": evil}
    document["result"]["artifacts"][0] |= {"path": evil, "target": evil, "runtime": evil, "reason": evil}
    write(run / "manifest.json", document)
    plan = run_folder.plan({evil: 8}, criterion=evil)
    plan["spec"]["family"] = evil
    write(run / "plan.json", plan)
    write(run / "quality.json", run_folder.quality(features=evil, where=evil))
    bench = run_folder.bench(4)
    bench["runs"][0]["warnings"] = [evil]
    write(run / "bench.json", bench)
    index = json.loads((run / "samples/index.json").read_text(encoding="utf-8"))
    index["rows"][0]["name"] = evil
    write(run / "samples/index.json", index)
    lines = [{"stage": evil, "step": step, f"loss_{evil}": 1, "held_out": {evil: step}} for step in range(3)]
    (run / "logs/metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    page = Text(render(read_run(run)))
    assert page.count("script") == clean.count("script") == 1
    assert page.count("img") == clean.count("img") == 4
    assert page.count("b") == 0
    assert not [given for _, given in page.tags if "onerror" in given]
    assert page.text.count("<script>alert(1)</script>") >= 20


def test_half_a_surrogate_pair_and_other_scripts_in_names_can_be_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=1)
    index = json.loads((run / "samples/index.json").read_text(encoding="utf-8"))
    index["rows"][0]["name"] = "馬\ud800.png"
    write(run / "samples/index.json", index)
    assert "馬?.png" in build_report(run).read_text(encoding="utf-8")


def test_only_manifest_and_plan_must_be_there(tmp_path: Path) -> None:
    document = run_folder.manifest(command="export")
    for key in ("result", "command_line", "timings_s"):
        del document[key]
    write(tmp_path / "manifest.json", document)
    write(tmp_path / "plan.json", run_folder.plan())
    page = Text(render(read_run(tmp_path)))
    for words in (
        "The plan keeps 4.9 % of the generator's multiply-accumulates at 256 x 256.",
        "This run has no sample pictures.",
        "This run has no bench.json: latency was not measured. mggc-edge bench measures it.",
        "This run has no quality.json: quality was not measured.",
        "This run has no logs/metrics.jsonl: nothing was trained.",
        "MACs | multiplications needed, at 256 x 256 | - | - | -",
        "File size | ONNX, fp32 | 45.6 MB | 2.31 MB | 19.7x",
    ):
        assert words in page.text
    assert "Discriminator" not in page.text
    assert "Files to use" not in page.text
    assert "Copy" not in page.text


def test_without_a_result_latency_and_macs_come_from_the_bench(tmp_path: Path) -> None:
    write(tmp_path / "manifest.json", run_folder.manifest(result=None))
    write(tmp_path / "plan.json", run_folder.plan())
    write(tmp_path / "bench.json", run_folder.bench())
    facts = read_run(tmp_path)
    assert facts.latency == Latency(
        842.4, 68.43, 12.29, (11.9, 12.7), 0.603, "x86", "onnxruntime", "fp32", "faster", (11.8, 12.8),
        original_runtime="onnxruntime",
    )  # fmt: skip
    assert typed(headline(facts)).split("256 x 256. ")[1] == (
        "It runs 12.3 times faster [99 %: 11.8 to 12.8], from 842 ms to 68.4 ms a picture on x86 with ONNX Runtime in "
        "fp32."
    )


def test_what_disturbed_a_measurement_is_said_once(tmp_path: Path) -> None:
    write(tmp_path / "manifest.json", run_folder.manifest())
    write(tmp_path / "plan.json", run_folder.plan())
    bench = run_folder.bench()
    bench["runs"][0]["warnings"] = ["few_samples", "load"]
    bench["runs"][1]["warnings"] = ["load"]
    write(tmp_path / "bench.json", bench)
    assert "The measurement warns of: few samples, load." in Text(render(read_run(tmp_path))).text


def test_warnings_of_the_latency_are_sentences_with_what_to_do(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=3, samples=1)
    document = run_folder.manifest()
    warning = {"code": "load", "text": "others wanted to run", "advice": "end <them>"}
    document["result"]["latency"] |= {"warnings": [warning], "pairs_left_out": 3}
    write(run / "manifest.json", document)
    bench = run_folder.bench()
    bench["runs"][0]["warnings"] = ["load", "few_samples"]
    write(run / "bench.json", bench)
    text = Text(render(read_run(run))).text
    assert "Warning: others wanted to run; end <them>. | The measurement warns of: few samples." in text
    assert "3 pairs of samples were disturbed by other processes: among the dots, but not in the ratio." in text


def test_without_a_comparison_no_speed_up_is_claimed(tmp_path: Path) -> None:
    write(tmp_path / "manifest.json", run_folder.manifest(result=None))
    write(tmp_path / "plan.json", run_folder.plan())
    write(tmp_path / "bench.json", run_folder.bench(comparisons=[]))
    facts = read_run(tmp_path)
    assert "faster" not in headline(facts)
    words = (
        "Latency, median | a picture on x86 with ONNX Runtime in fp32; 95 % intervals below | 842 ms | 837 to 848 | "
    )
    assert f"{words}68.4 ms | 68.0 to 68.9 | ? | MACs |" in Text(render(facts)).text


def quality_rows(changes: dict[str, object]) -> Callable[[Path], str]:
    def rows(folder: Path) -> str:
        write(folder / "quality.json", run_folder.quality(**changes))
        return Text(render(read_run(folder))).text

    return rows


def distance(metric: str, **more: object) -> dict[str, object]:
    """A row of the distances in quality.json."""
    kid = {"original": {"value": 0.0231, "std": 0.0042, "ci95": [0.019, 0.027]},
           "compressed": {"value": 0.0254, "std": 0.0044, "ci95": None}}  # fmt: skip
    return {"features": "Inception 2015-12-05", "metric": metric, "kid": kid, **more}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"psnr_to_original": None, "identical": True}, "PSNR to the original | higher is closer | - | identical"),
        ({"psnr_to_original": None, "identical": True}, "Its pictures equal the original's."),
        ({"features": None, "kid": None}, "KID | not measured: no feature network was given | - | -"),
        (
            {"features": "inception", "frechet": {"original": 61.53, "compressed": 64.9}},
            "Fréchet distance (inception) | lower is better | 61.5 | 64.9",
        ),
        (
            {"features": "net", "frechet": {"features": "net", "original": None, "compressed": 4.25}},
            "Fréchet distance (net) | lower is better | - | 4.25",
        ),
        (
            {"before_finetuning": None},
            "not to be compared with the PSNR above | - | 26.98 dB",
        ),
        (
            {"psnr_to_original_ci95": [26.934, 27.88]},
            "PSNR to the original | higher is closer; 95 % interval below | - | 27.41 dB | 26.93 to 27.88",
        ),
        (
            {"ssim_to_original_ci95": [0.9011, 0.9225]},
            "SSIM to the original | 1 is equal | - | 0.9123 | 0.9011 to 0.9225",
        ),
        (
            {
                "to_truth": {
                    "original": {"psnr": 18.02, "psnr_ci95": [17.5, 18.5]},
                    "compressed": {"psnr": 17.64, "psnr_ci95": [17.1, 18.1]},
                }
            },
            "PSNR to the truth | higher is closer; 95 % interval below | 18.02 dB | 17.50 dB to 18.50 dB | 17.64 dB",
        ),
        (
            {
                "distances": [
                    distance(
                        "fid",
                        frechet={
                            "original": 61.5,
                            "compressed": 64.9,
                            "original_ci95": [60, 63],
                            "compressed_ci95": None,
                        },
                    )
                ]
            },
            "FID (Inception 2015-12-05) | lower is better; 95 % interval below | 61.5 | 60.0 to 63.0 | 64.9",
        ),
        (
            {"distances": [distance("fid", reason="106 pictures are too few for 2048 features: 4,096 are needed")]},
            "FID (Inception 2015-12-05) | not measured: 106 pictures are too few for 2048 features: 4,096 are needed",
        ),
        (
            {"distances": [distance("fid")]},
            "KID (Inception 2015-12-05) | lower is better; 95 % interval below | 0.0231 | 0.0190 to 0.0270 | 0.0254",
        ),
        (
            {"distances": [distance("frechet", reason="x"), distance("fid", reason="y")]},
            "Fréchet distance (Inception 2015-12-05) | not measured: x",
        ),
        (
            {
                "segmentation": {
                    "original": {"miou": 0.31, "miou_ci95": [0.28, 0.34], "pixel_accuracy": 0.62},
                    "compressed": {"miou": 0.3, "miou_ci95": None, "pixel_accuracy": 0.6},
                    "real": {"miou": 0.41234},
                }
            },
            "0.412 of the true photographs; 95 % interval below | 0.3100 | 0.2800 to 0.3400 | 0.3000 | Pixels with the",
        ),
        (
            {
                "distances": [
                    {**distance("fid", reason="x"), "kid": None, "kid_reason": "5 pictures are too few for KID"}
                ]
            },
            "KID (Inception 2015-12-05) | not measured: 5 pictures are too few for KID | - | -",
        ),
        ({"pictures": 1, "where": "built-in"}, "Measured on 1 built-in picture."),
    ],
)
def test_what_quality_does_not_know_is_said(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    write(tmp_path / "manifest.json", run_folder.manifest())
    write(tmp_path / "plan.json", run_folder.plan())
    assert words in quality_rows(changes)(tmp_path)


def test_without_finetuning_nothing_is_said_of_it(tmp_path: Path) -> None:
    write(tmp_path / "manifest.json", run_folder.manifest())
    write(tmp_path / "plan.json", run_folder.plan())
    text = quality_rows({"before_finetuning": None, "after_finetuning": None})(tmp_path)
    assert "PSNR to the original | higher is closer" in text
    assert "Before finetuning" not in text


def test_a_log_beyond_the_bound_makes_a_remark_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", steps=5)
    words = "The log has more than 5,000,000 lines; what comes after them is not shown."
    assert words not in build_report(run).read_text(encoding="utf-8")
    monkeypatch.setattr(curves, "MAX_LINES", 4)
    page = build_report(run).read_text(encoding="utf-8")
    assert f'<h2>Training</h2><p class="warning">{words}</p><h3>Encoder</h3>' in page
    assert "Finetuning: losses" not in page


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    pages = [build_report(write_run(tmp_path / name / "run")).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


def test_a_report_replaces_the_one_before_it_and_leaves_nothing_else(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    before = {path.name for path in run.iterdir()}
    (run / "report.html").write_text("old")
    assert build_report(run) == run / "report.html"
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {path.name for path in run.iterdir()} == before | {"report.html"}


def test_facts_alone_make_a_page(whole: Path) -> None:
    facts = RunFacts(name="x", command="compress", plan=read_run(whole).plan)
    assert "ResNet-9 generator" in render(facts)
