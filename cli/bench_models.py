"""What `bench` measures: the files of a run, or files by name, each with the engines and precisions asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mggc_edge.benchmarks.workload import Workload

Size = tuple[int, int]
BUNDLE_FOLDER, BUNDLE_FILE = "tensorrt", "bundle.json"  # of a run, and in it; see compiler/tensorrt_bundle.py
# How a model is run: runtime, provider, precision.
Way = tuple[str, str, str]


@dataclass(frozen=True)
class Choice:
    """What --runtime, --provider and --precision ask for.

    Attributes:
        runtimes: empty: by the file's ending; bf16 is OpenVINO's.
        providers: for those runtimes that have any.
        precisions: of files, or bf16 for float32 files; empty: whatever a file is.
    """

    runtimes: tuple[str, ...] = ()
    providers: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ()

    def files(self) -> tuple[tuple[str | None, str], ...]:
        """Return every runtime with the ending of its files; where none is asked for, None with that of ONNX files."""
        from mggc_edge.backends.registry import RUNTIMES

        return tuple((name, RUNTIMES[name].ending) for name in self.runtimes) or ((None, ".onnx"),)

    def builds(self, path: Path) -> bool:
        """Return whether TensorRT was asked for, and the file is one of a bundle, which engines are built from."""
        bundled = path.suffix.lower() == ".onnx" and (path.parent / BUNDLE_FILE).is_file()
        return "tensorrt" in self.runtimes and bundled

    def _wants(self, precision: str) -> bool:
        return precision in (self.precisions or (precision,))

    def ways(self, path: Path, precision: str) -> list[Way]:
        """Return how a file of this precision is run; none where it cannot be run as it was asked."""
        from mggc_edge.backends.registry import RUNTIMES

        found = [("tensorrt", "cpu", precision)] if self.builds(path) and self._wants(precision) else []
        fits = [known for known in RUNTIMES.values() if known.ending == path.suffix.lower()]
        for known in fits:
            for wanted in self.precisions or (precision,):
                if wanted != precision and (wanted, precision) != ("bf16", "fp32"):
                    continue
                if wanted == "bf16" and "precision" not in known.takes:
                    continue
                usual = known == fits[0] or wanted == "bf16"
                if known.name in self.runtimes or (not self.runtimes and usual):
                    providers = self.providers if "provider" in known.takes else ("cpu",)
                    found += [(known.name, provider, wanted) for provider in providers]
        return found


SIDES = ("original", "compressed")  # of a run


def workloads(paths: Sequence[Path], size: Size | None, choice: Choice, sides: Sequence[str] = SIDES) -> list[Workload]:
    """Return what to measure, with names of their own: the two models of a run, or those of `sides`; or the files.

    Raises:
        InputError: something is no file that can be measured, or nothing can be run in a way that was asked for.
    """
    from mggc_edge.errors import InputError
    from mggc_edge.opening import what_is

    kinds = [what_is(path) for path in paths]
    if kinds == ["run"]:
        found = [
            (_run_workload(name, path, size), wanted) for name, path, wanted in _run_models(paths[0], choice, sides)
        ]
    else:
        for path, kind in zip(paths, kinds, strict=True):
            if kind == "run":
                raise InputError(f"'{path}' is a run, and is measured alone", hint="name its .onnx files")
            if kind != "artifact":
                raise InputError(
                    f"'{path}' is a {kind}; .onnx and .ort files can be measured",
                    hint="mggc-edge export makes one of it",
                )
        found = [(_workload(name, path, size), choice) for name, path in zip(_names(paths), paths, strict=True)]
    rows = [_in_every_way(model, wanted.ways(model.path, model.precision)) for model, wanted in found]
    made = [row for group in rows for row in group]
    _check_all_used(made, [model for model, _ in found], choice)
    if kinds == ["run"]:
        _check_both_sides(rows, [model for model, _ in found], choice)
    return made


def _in_every_way(model: Workload, ways: Sequence[Way]) -> list[Workload]:
    """Return a model once for every way, named by what the ways differ in."""
    differing = [len({way[part] for way in ways}) > 1 for part in range(3)]
    rows = []
    for way in ways:
        words = [word for word, differs in zip(way, differing, strict=True) if differs]
        name = f"{model.name}, {' '.join(words)}" if words else model.name
        rows.append(replace(model, name=name, runtime=way[0], provider=way[1], precision=way[2]))
    return rows


def _check_all_used(made: Sequence[Workload], models: Sequence[Workload], choice: Choice) -> None:
    """Raise where a runtime, precision or provider was asked for that no row is measured with."""
    from mggc_edge.backends.registry import RUNTIMES
    from mggc_edge.errors import ArtifactError, InputError

    names = ", ".join(f"'{model.path.name}'" for model in models)
    for runtime in choice.runtimes:
        built = runtime == "tensorrt" and any(choice.builds(model.path) for model in models)
        if not built and all(model.path.suffix.lower() != RUNTIMES[runtime].ending for model in models):
            raise ArtifactError(
                f"the runtime '{runtime}' opens {RUNTIMES[runtime].ending} files, and there is none among {names}",
                hint=f"mggc-edge export --runtime {runtime} writes one",
            )
    for precision in choice.precisions:
        if all(row.precision != precision for row in made):
            if precision == "bf16":
                hint = "OpenVINO runs fp32 files in bf16: --runtime openvino"
            else:
                hint = f"mggc-edge export --precision {precision} makes such a file"
            has = ", ".join(f"'{model.path.name}' is {model.precision}" for model in models)
            raise InputError(f"there is nothing to measure in {precision}: {has}", hint=hint)
    for runtime in choice.runtimes:
        if all(row.runtime != runtime for row in made):
            raise InputError(f"the runtime '{runtime}' cannot run {names} in {', '.join(choice.precisions)}")
    for provider in choice.providers:
        if all(row.provider != provider for row in made):
            raise InputError(
                f"there is nothing to measure on '{provider}': providers are ONNX Runtime's",
                hint="add onnxruntime to --runtime, or leave out --provider",
            )


def _check_both_sides(rows: Sequence[Sequence[Workload]], models: Sequence[Workload], choice: Choice) -> None:
    """Raise where a run's original or compressed generator would not be measured at all."""
    from mggc_edge.errors import InputError

    sides = [model.name.split(" ")[0] for model in models]
    for side in dict.fromkeys(sides):
        if not any(group for group, of in zip(rows, sides, strict=True) if of == side):
            model = models[sides.index(side)]
            raise InputError(
                f"the run's {side} generator, '{model.path.name}', is {model.precision} and is not run in "
                f"{', '.join(choice.precisions)}",
                hint="leave out --precision, or ask for the precision that it has",
            )


def _run_models(run: Path, choice: Choice, sides: Sequence[str]) -> list[tuple[str, Path, Choice]]:
    """Return name, file, and how it is run, of a run's original and compressed generator.

    Where the original has no file of a precision that was asked for, its float32 file stands in.
    """
    from mggc_edge.artifacts import ORIGINAL_FILE, PRECISIONS

    listed = _listed(run)
    groups: dict[tuple[Path, str], tuple[str, ...]] = {}
    for runtime, ending in choice.files():
        key = _run_file(run, runtime, listed), ".onnx" if runtime == "tensorrt" else ending
        groups[key] = (*groups.get(key, ()), *([] if runtime is None else [runtime]))
    found: list[tuple[str, Path, Choice]] = []
    for name in sides:
        for (generator, ending), runtimes in groups.items():
            place = generator.parent.relative_to(run.resolve()).as_posix()  # of the same target and engine
            stem, own, _ = (ORIGINAL_FILE if name == "original" else generator.name).split(".")
            own_folder = place.count("/") > 1 and not place.endswith(f"/{BUNDLE_FOLDER}")
            if name == "original" and own_folder and f"{place}/{stem}.{own}{ending}" not in listed:
                place = place.rpartition("/")[0]  # an engine's graph of a file that was given
            there = [kind for kind in PRECISIONS if f"{place}/{stem}.{kind}{ending}" in listed]
            wanted = ["fp32" if kind == "bf16" else kind for kind in choice.precisions] or [own]
            kinds, how = [kind for kind in dict.fromkeys(wanted) if kind in there], replace(choice, runtimes=runtimes)
            if not kinds and name == "original":
                kinds, how = ["fp32"], replace(how, precisions=())
            kinds = kinds or [own]
            found += [(name, _file(run, f"{place}/{stem}.{kind}{ending}", listed), how) for kind in kinds]
    once: dict[tuple[str, Path], Choice] = {}
    for name, path, how in found:  # engines may share a file
        before = once.get((name, path))
        once[name, path] = how if before is None else replace(how, runtimes=(*before.runtimes, *how.runtimes))
    return _numbered([(name, path, how) for (name, path), how in once.items()])


def _run_file(run: Path, runtime: str | None, listed: Mapping[str, str]) -> Path:
    """Return the generator's file that an engine runs, or where there is none, the ONNX file in whose place it is.

    TensorRT's engines are built from the files of the run's bundle.
    """
    from mggc_edge.artifacts import GENERATOR_FILES
    from mggc_edge.errors import ArtifactError
    from mggc_edge.run_folder import run_artifact

    if runtime == "tensorrt":
        bundled = [
            name for name in listed for file in GENERATOR_FILES.values() if name.endswith(f"/{BUNDLE_FOLDER}/{file}")
        ]
        if bundled:
            return run.resolve() / min(bundled, key=lambda name: f"/{BUNDLE_FOLDER}/{BUNDLE_FOLDER}/" not in name)
        usual = run_artifact(run)
        return usual.parent / BUNDLE_FOLDER / usual.name
    if runtime is not None:
        with suppress(ArtifactError):
            return run_artifact(run, runtime)
    return run_artifact(run)


def _numbered(found: list[tuple[str, Path, Choice]]) -> list[tuple[str, Path, Choice]]:
    """Return the same with the file's precision and ending in the name where a name occurs more than once.

    Where that is not enough, its folder is in the name too.
    """
    counts = Counter(name for name, _, _ in found)
    endings = [_kind(path) for _, path, _ in found]
    longer = [name if counts[name] == 1 else f"{name} {end}" for (name, _, _), end in zip(found, endings, strict=True)]
    again = Counter(longer)
    return [
        (name if again[name] == 1 else f"{side} {path.parent.name}/{end}", path, how)
        for name, (side, path, how), end in zip(longer, found, endings, strict=True)
    ]


def _kind(path: Path) -> str:
    """Return precision and ending of a file, "fp16.onnx"; of one that an engine is built from "fp16.engine"."""
    kind = path.name.split(".", 1)[1]
    return f"{kind.rsplit('.', 1)[0]}.engine" if path.parent.name == BUNDLE_FOLDER else kind


def _listed(run: Path) -> dict[str, str]:
    """Return the hash of every file that a run's manifest names."""
    from mggc_edge.artifacts import read_manifest

    entries = [entry for entry in read_manifest(run)["files"] if isinstance(entry, dict)]
    return {str(entry.get("path")): str(entry.get("sha256")) for entry in entries}


def _file(run: Path, name: str, listed: dict[str, str]) -> Path:
    """Return a file of a run, once it is sure that it is the one that the manifest names."""
    from mggc_edge.artifacts import another_file, sha256_of
    from mggc_edge.errors import ArtifactError

    path = run / name
    if name not in listed:
        if path.name.startswith("original.") and path.suffix == ".onnx" and path.parent.name != BUNDLE_FOLDER:
            generator = path.with_name(path.name.replace("original.", "generator."))
            raise ArtifactError(
                f"the run '{run}' has no original to compare with",
                hint=f"measure the generator alone: mggc-edge bench {generator}",
            )
        raise ArtifactError(
            f"the run '{run}' has no '{name}'",
            hint="mggc-edge export writes files of other runtimes and precisions: --runtime, --precision",
        )
    if not path.is_file():
        raise ArtifactError(f"'{path}' is named in the manifest, but it is not there")
    if sha256_of(path) != listed[name]:
        raise another_file(path, "export again, or measure the files themselves if you trust them")
    return path


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a name for every file: its own, with its folders where two are alike; the same file twice is numbered."""
    shorts = [path.name for path in paths]
    names = shorts if len(set(shorts)) == len({str(path) for path in paths}) else [str(path) for path in paths]
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return numbered


def _run_workload(name: str, path: Path, size: Size | None) -> Workload:
    """Return a file of a run; one in ONNX Runtime's format has the MACs of the .onnx file that it was made from."""
    model, parent = _workload(name, path, size), path.with_suffix(".onnx")
    if model.macs_true is not None or not parent.is_file():
        return model
    facts = _workload(name, parent, size)
    return replace(model, macs_true=facts.macs_true, macs_paper=facts.macs_paper, precision=facts.precision)


def _workload(name: str, path: Path, size: Size | None) -> Workload:
    """Check a file before an engine sees it, and count its multiplications."""
    from mggc_edge.benchmarks.workload import PRECISIONS, Workload
    from mggc_edge.errors import InputError, MissingDependencyError

    macs_true = macs_paper = None
    # A file in ONNX Runtime's own format says its precision in its name alone: generator.int8.ort.
    named = path.suffixes[-2][1:] if len(path.suffixes) > 1 else ""
    precision = named if named in PRECISIONS else "fp32"
    # A board without onnx has only the engine's own checks, and so has a file in ONNX Runtime's own format.
    if path.suffix.lower() == ".onnx":
        with suppress(MissingDependencyError):
            from mggc_edge.compiler.facts import check_onnx, onnx_facts
            from mggc_edge.compiler.sizes import check_picture_size

            check_onnx(path)
            facts = onnx_facts(path)
            macs_true, macs_paper, precision = facts.macs_true, facts.macs_paper, facts.precision
            picture = facts.inputs[0] if facts.inputs else None
            if size is None and picture is not None and len(picture.shape) == 4 and picture.picture_size is None:
                raise InputError(f"'{path}' takes pictures of any size", hint="give one with --image-size")
            if size is not None:
                check_picture_size(path, size)
    return Workload(name, path, precision=precision, macs_true=macs_true, macs_paper=macs_paper, image_size=size)
