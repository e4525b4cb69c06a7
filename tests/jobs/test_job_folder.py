"""The folder of a job: facts that must stay, what is taken back, and the command that makes the same run."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import pytest
import torch

from mggc_edge.artifacts import sha256_of, write_json
from mggc_edge.errors import ArtifactError, InputError, OutputError, SettingError, counted
from mggc_edge.jobs.estimate import sentence
from mggc_edge.jobs.folder import Job, alone_in, command_line, files_below, resume_job, start_job
from mggc_edge.jobs.outputs import original_outputs
from mggc_edge.jobs.request import CompressRequest, budget_fraction, parse_budget
from mggc_edge.jobs.written import check_written, is_lost, is_written, remember_written
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.pictures import PictureFormat
from mggc_edge.settings import Settings
from mggc_edge.training.bank import ProceduralPictures
from tests.models.model_helpers import network_of

USUAL = {**CompressRequest("", "1").to_json(), "model": None, "budget": None}


def test_a_job_is_read_back_as_it_was_started(tmp_path: Path) -> None:
    settings = Settings({"mggc.k": 3})
    request = CompressRequest("m.pth", "0.3", image_size=(32, 64), quick=True)
    job = start_job(tmp_path / "run", "compress", request.to_json(), settings, seed=5, threads=2)
    job.remember("split", "abc", "the pictures")
    with job.stage("prune"):
        pass
    again = resume_job(tmp_path / "run", "compress")
    assert CompressRequest.from_json(again.request) == request
    assert again.settings.to_json() == settings.to_json()
    assert (again.seed, again.threads, again.resumed, again.finished) == (5, 2, True, False)
    assert (again.facts, list(again.timings_s)) == ({"split": "abc"}, ["prune"])
    again.remember("split", "abc", "the pictures")
    with pytest.raises(InputError, match=r"^the pictures changed since this job was started"):
        again.remember("split", "abd", "the pictures")


def test_the_seconds_of_a_stage_are_those_of_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def kept() -> dict[str, float]:
        found: dict[str, float] = json.loads((tmp_path / "run/job.json").read_text())["timings_s"]
        return found

    def stopped(job: Job) -> None:
        with job.stage("prune"):
            now[0] += 2.0
            job.save()  # with a state: a process that is killed from here on has counted these
            assert kept() == {"prune": 2.0}
            now[0] += 1.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped(start_job(tmp_path / "run", "compress", {}, Settings(), seed=0, threads=1))
    assert kept() == {"prune": 3.0}
    now[0] += 50.0  # between the processes
    job = resume_job(tmp_path / "run", "compress")
    with job.stage("prune"):
        now[0] += 4.0
    now[0] += 9.0
    job.save()
    assert kept() == {"prune": 7.0}


def test_what_followed_from_something_that_is_made_again_is_removed(tmp_path: Path) -> None:
    job = start_job(tmp_path / "run", "compress", {}, Settings(), seed=0, threads=1)
    for name in ("slim/spec.json", "quality.json", "plan.json"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
    job.facts, job.timings_s = {"a": 1, "b": 2}, {"prune": 1.0, "quality": 2.0}
    job.discard(("slim", "quality.json", "none"), facts=("a",), stages=("quality",))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["job.json", "plan.json", "work"]
    assert (job.facts, job.timings_s) == ({"b": 2}, {"prune": 1.0})


def test_what_is_removed_is_no_longer_known_by_its_hash(tmp_path: Path) -> None:
    job = start_job(tmp_path / "run", "compress", {}, Settings(), seed=0, threads=1)
    for name in ("slim/spec.json", "plan.json"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text(name)
    remember_written(job, "slim", "plan.json", "discriminator-plan.json")
    known = resume_job(tmp_path / "run", "compress").facts["written"]
    assert known == {name: sha256_of(tmp_path / "run" / name) for name in ("slim/spec.json", "plan.json")}
    assert [is_written(job, name) for name in ("slim", "plan.json", "sli", "original")] == [True, True, False, False]
    job.discard(("slim", "plan"))
    assert (is_written(job, "slim"), is_lost(job, "slim/spec.json"), is_written(job, "plan.json")) == (
        False,
        False,
        True,
    )
    (tmp_path / "run/plan.json").unlink()
    assert (is_written(job, "plan.json"), is_lost(job, "plan.json")) == (False, True)
    check_written(job)  # what is not there is not another one
    path = tmp_path / "run/job.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "facts": {"written": ["plan.json"]}}))
    with pytest.raises(ArtifactError, match="is damaged: its 'written' is of another kind"):
        resume_job(tmp_path / "run", "compress")


def test_a_job_without_a_measurement_that_its_manifest_lists_is_not_finished(tmp_path: Path) -> None:
    job = start_job(tmp_path / "run", "compress", {}, Settings(), seed=0, threads=1)
    files = [{"path": name} for name in ("quality.json", "report.html")]
    write_json(tmp_path / "run/manifest.json", {"schema": "mggc-edge/manifest/1", "files": files, "complete": True})
    found = [job.finished]  # of an older version: it would have to begin anew
    job.facts["written"] = {}
    found.append(job.finished)
    (tmp_path / "run/quality.json").touch()
    found.append(job.finished)  # a report can be built without
    assert found == [True, False, True]


def test_a_job_that_goes_on_elsewhere_finds_what_was_named_where_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a/m.pth", "b/m.pth", "a/f.onnx", "b/moved.pth"):
        (tmp_path / name).touch()
    typed = CompressRequest(
        "m.pth", "0.3", feature_net="f.onnx:x", encoder="onnx:f.onnx:y", partner="moved.pth", data="/data"
    ).to_json()
    monkeypatch.chdir(tmp_path / "a")
    start_job(Path("run"), "compress", typed, Settings(), seed=0, threads=1)
    assert json.loads(Path("run/job.json").read_text())["cwd"] == str(tmp_path / "a")
    assert resume_job(Path("run"), "compress").request == typed
    monkeypatch.chdir(tmp_path / "b")
    job = resume_job(Path("../a/run"), "compress")
    # moved.pth is here
    found = {"model": f"{tmp_path}/a/m.pth"}
    found |= {"feature_net": f"{tmp_path}/a/f.onnx:x", "encoder": f"onnx:{tmp_path}/a/f.onnx:y"}
    assert job.request == {**typed, **found}
    assert (job.typed, job.base) == (typed, tmp_path / "a")
    job.save()
    saved = json.loads(Path("../a/run/job.json").read_text())
    assert (saved["request"], saved["cwd"]) == (typed, str(tmp_path / "a"))
    assert command_line("compress", job, USUAL).startswith("mggc-edge compress --model m.pth --budget 0.3 ")


def test_a_job_of_a_version_that_kept_no_place_is_resumed_from_here(tmp_path: Path) -> None:
    typed = CompressRequest("m.pth", "0.3").to_json()
    start_job(tmp_path / "run", "compress", typed, Settings(), seed=0, threads=1)
    path = tmp_path / "run/job.json"
    document = json.loads(path.read_text())
    del document["cwd"]
    path.write_text(json.dumps(document))
    job = resume_job(tmp_path / "run", "compress")
    assert (job.request, job.base) == (typed, None)
    job.save()
    assert json.loads(path.read_text()) == document
    path.write_text(json.dumps({**document, "cwd": 5}))
    with pytest.raises(ArtifactError, match="is damaged: its 'cwd' is of another kind"):
        resume_job(tmp_path / "run", "compress")


def test_a_folder_with_an_unfinished_job_says_how_to_go_on_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    start_job(folder, "compress", {}, Settings(), seed=0, threads=1)
    with pytest.raises(OutputError) as caught:
        start_job(folder, "compress", {}, Settings(), seed=0, threads=1)
    assert caught.value.message == f"'{folder}' holds a run that was started before"
    assert caught.value.hint == f"go on with: mggc-edge compress --resume '{folder}'"
    with pytest.raises(OutputError, match="has other content, and nothing is overwritten"):
        start_job(folder, "train", {}, Settings(), seed=0, threads=1)
    manifest = {"schema": "mggc-edge/manifest/1", "files": [], "complete": True}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="has other content, and nothing is overwritten"):
        start_job(folder, "compress", {}, Settings(), seed=0, threads=1)


def test_one_of_a_kind_is_no_plural() -> None:
    assert (counted(1, "step"), counted(0, "step"), counted(2, "step")) == ("1 step", "0 steps", "2 steps")
    assert sentence(3000.0, 1, "bf16") == (
        "about 50 min on this machine with 1 thread, training in bf16; it can be stopped and resumed at any time"
    )


def test_a_link_to_a_run_is_followed_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        start_job(tmp_path / name, "compress", {}, Settings(), seed=0, threads=1)
    (tmp_path / "latest").symlink_to("a")
    job = resume_job(tmp_path / "latest", "compress")
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("b")
    assert job.folder == tmp_path / "a"


def test_a_manifest_that_is_not_complete_is_not_the_end(tmp_path: Path) -> None:
    job = start_job(tmp_path / "run", "compress", {}, Settings(), seed=0, threads=1)
    document = {"schema": "mggc-edge/manifest/1", "files": [], "result": {"a": 1}}
    for complete in (False, True):
        (tmp_path / "run/manifest.json").write_text(json.dumps({**document, "complete": complete}))
        assert job.finished is complete
    assert job.result() == {"a": 1}
    (tmp_path / "run/manifest.json").write_text(json.dumps({**document, "result": None}))
    with pytest.raises(ArtifactError, match="holds no result"):
        job.result()


def test_a_job_in_which_nothing_was_done_is_taken_back(tmp_path: Path) -> None:
    for name, there in (("new", False), ("empty", True)):
        folder = tmp_path / name
        if there:
            folder.mkdir()
        job = start_job(folder, "compress", {}, Settings(), seed=0, threads=1)
        with alone_in(folder):
            pass
        job.take_back()
        assert folder.exists() is there
        assert not there or list(folder.iterdir()) == []


@pytest.mark.parametrize("work", ["work/encoder.state", "original/spec.json"])
def test_a_job_in_which_something_was_done_is_not_taken_back(tmp_path: Path, work: str) -> None:
    job = start_job(tmp_path / "run", "compress", {}, Settings(), seed=0, threads=1)
    (tmp_path / "run" / work).parent.mkdir(exist_ok=True)
    (tmp_path / "run" / work).touch()
    job.take_back()
    assert (tmp_path / "run/job.json").is_file()
    assert (tmp_path / "run" / work).is_file()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    start_job(tmp_path / "run", "compress", {}, Settings(), seed=0, threads=1)
    left = tmp_path / "run/slim/.weights.safetensors.abc.partial"
    left.parent.mkdir()
    left.touch()
    with alone_in(tmp_path / "run"):
        assert not left.exists()
        with pytest.raises(ArtifactError, match="another process works in"), alone_in(tmp_path / "run"):
            pass


def test_the_command_line_has_what_is_not_usual(tmp_path: Path) -> None:
    request = CompressRequest("my model.pth", "1", image_size=(32, 64), quick=True, min_psnr=20.0)
    settings = Settings({"mggc.feedback": False, "mggc.k": 3})
    job = start_job(tmp_path / "run", "compress", request.to_json(), settings, seed=5, threads=2)
    assert command_line("compress", job, USUAL) == (
        "mggc-edge compress --model 'my model.pth' --budget 1 --image-size 32x64 --quick --min-psnr 20.0 "
        "--set mggc.feedback=false --set mggc.k=3 --seed 5 --threads 2"
    )


def test_files_below_come_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "b/.x", "a", "c/d/3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path, ("b", "a", "none", "c"))]
    assert found == ["b/1", "b/2", "a", "c/d/3"]


@pytest.mark.parametrize(
    ("text", "number", "absolute"),
    [("0.05", 0.05, False), ("1", 1.0, False), (" .5 ", 0.5, False), ("2.5G", 2.5e9, True), ("300M", 3e8, True),
     ("1e9", 1e9, True), ("2000", 2000.0, True)],
)  # fmt: skip
def test_budgets(text: str, number: float, absolute: bool) -> None:
    assert parse_budget(text) == (number, absolute)


@pytest.mark.parametrize("text", ["", "0", "1.5", "abc", "inf", "-0.1", "5 %", "0.5 0.5", "20"])
def test_texts_that_are_no_budget(text: str) -> None:
    with pytest.raises(SettingError, match="is no budget"):
        parse_budget(text)


def test_absolute_budgets_are_fractions_of_the_original() -> None:
    assert budget_fraction("2.5G", 10_000_000_000) == 0.25
    with pytest.raises(InputError, match=r"the budget 2.5G is more than the original's 1 G MACs"):
        budget_fraction("2.5G", 1_000_000_000)


@pytest.mark.parametrize(
    "document", [{}, {"model": "m"}, {**CompressRequest("m", "1").to_json(), "more": 1}, {"image_size": [1]}]
)
def test_a_damaged_request_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(InputError, match="the request of this job cannot be read"):
        CompressRequest.from_json(document)


def test_outputs_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4), size=(32, 32), dtype=torch.float32)
    with torch.no_grad():
        network.get_submodule("model.1").get_parameter("weight").sign_().mul_(3e38)
    pictures = ProceduralPictures(2, (32, 32), PictureFormat.for_channels(3), seed=0)
    with pytest.raises(InputError, match="the original's output for 'built-in 0' or one after it is no picture"):
        original_outputs(network, pictures, PictureFormat.for_channels(3), tmp_path / "outputs", precision="fp32")
    assert list((tmp_path / "outputs").iterdir()) == []


def test_outputs_that_do_not_fit_on_the_disk_say_why(tmp_path: Path) -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4), size=(32, 32), dtype=torch.float32)
    format_ = PictureFormat.for_channels(3)
    pictures = ProceduralPictures(12, (32, 32), format_, seed=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, hard))  # no file may grow beyond it: of 36,992 bytes are 16,000
    try:
        with pytest.raises(OutputError) as caught:
            original_outputs(network, pictures, format_, tmp_path / "outputs", precision="fp32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.message == f"'{tmp_path}/outputs/000000.npy' cannot be written: File too large"
    assert list((tmp_path / "outputs").iterdir()) == []
