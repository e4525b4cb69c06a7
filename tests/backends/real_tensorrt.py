"""The real bindings on a machine without a GPU: fetched, given empty libraries to link to, imported, and listed.

`python -m tests.backends.real_tensorrt` writes the listing anew that the fast tests compare with.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

RECORDING = Path(__file__).parent / "tensorrt_names.json"
# Version -> the package that has its bindings. 8.5 has none on the index.
TENSORRT = {
    "8.6.1": "tensorrt_bindings",
    "10.3.0": "tensorrt_cu12_bindings",
    "10.16.1.11": "tensorrt_cu12_bindings",
    "11.4.0.106": "tensorrt_cu13_bindings",
}
CUDA = {"11.8.3": "cuda-python", "12.8.0": "cuda-bindings", "13.0.0": "cuda-bindings"}
CLASSES = (
    "Builder", "BuilderFlag", "DataType", "EngineInspector", "IBuilderConfig", "ICudaEngine", "IExecutionContext",
    "IHostMemory", "ILayer", "ILogger", "INetworkDefinition", "IOptimizationProfile", "ITensor", "ITimingCache",
    "LayerInformationFormat", "LayerType", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser",
    "OnnxParserFlag", "ParserError", "ProfilingVerbosity", "Runtime", "TensorIOMode",
)  # fmt: skip
# What the libraries must export, see `nm -D --undefined-only tensorrt.so`; of 8.6 also two parsers that are gone since.
ENTRY_POINTS = re.compile(r"\w+_INTERNAL|get\w*(Registry|Version)|initLibNvInferPlugins|_ZN1[14]nv\w+")
LIST_TENSORRT = """
import json, re, sys
import tensorrt_bindings as trt
def members(kind):
    found = {}
    for name in dir(kind):
        if name.startswith("_"):
            continue
        doc = (getattr(kind, name).__doc__ or "").strip().splitlines()
        match = re.match(re.escape(name) + r"\\((.*)\\) -> ", doc[0]) if doc else None
        if match is None:
            found[name] = None
            continue
        given = [part for part in re.findall(r"(?:^|, )(\\w+: [^=]*?(?: = [^,]*)?)(?=, \\w+: |$)", match.group(1))]
        given = given[1:] if given and given[0].startswith("self") else given
        found[name] = [sum(" = " not in part for part in given), len(given)]
    return found
try:
    trt.Builder(trt.Logger())
    without_driver = "starts"
except TypeError as error:
    without_driver = str(error)
json.dump({
    "module": sorted(name for name in dir(trt) if not name.startswith("_") or name == "__version__"),
    "classes": {name: members(getattr(trt, name)) for name in sys.argv[1].split(",")},
    "severities": sorted(trt.ILogger.Severity.__members__),
    "without_driver": without_driver,
}, sys.stdout)
"""
LIST_CUDA = """
import json, re, sys
try:
    from cuda.bindings import runtime as cudart
except ImportError:
    from cuda import cudart
wanted = re.compile(
    "cuda(Malloc|Free|MemcpyAsync|MemcpyKind|Get|SetDevice|Device(Attr|GetAttribute)|Graph(Inst|Launch|Destroy|ExecDes)"
    "|Stream(Create|Destroy|Sync|BeginCapture|EndCapture|CaptureMode))"
)
enums = ("cudaDeviceAttr", "cudaMemcpyKind", "cudaStreamCaptureMode")
names = [name for name in dir(cudart) if wanted.match(name)]
members = [member for enum in enums for member in getattr(cudart, enum).__members__ if "DevAttr" not in member]
members += [member for member in cudart.cudaDeviceAttr.__members__ if "ComputeCapability" in member]
json.dump(sorted({*names, *members}), sys.stdout)
"""


def fetch(package: str, version: str, folder: Path) -> Path:
    """Download one wheel and return the folder that it is unpacked in."""
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*line, f"{package}=={version}", "-d", str(folder)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def build_empty_libraries(bindings: Path, folder: Path) -> Path:
    """Build the libraries that the bindings link to, each with every entry point, returning null."""
    folder.mkdir()
    undefined = subprocess.run(["nm", "-D", "--undefined-only", bindings], capture_output=True, text=True, check=True)
    names = sorted({line.split()[-1] for line in undefined.stdout.splitlines()})
    source = folder / "empty.c"
    source.write_text(
        "".join(f"void *{name}(void) {{ return 0; }}\n" for name in names if ENTRY_POINTS.fullmatch(name))
    )
    needed = subprocess.run(["readelf", "-d", bindings], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"\[(libnv\w+\.so\.\d+)\]", needed):
        line = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", folder / library, source]
        subprocess.run(line, check=True, capture_output=True)
    return folder


def run_with(site: Path, libraries: Path | None, code: str, *words: str) -> str:
    """Run Python code in a process that sees one unpacked wheel, and return what it prints."""
    environment = {"PYTHONPATH": str(site), "LD_LIBRARY_PATH": str(libraries or "")}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def bindings_of(version: str, folder: Path) -> tuple[Path, Path]:
    """Return (where the bindings of a version are, where the libraries are that they link to)."""
    site = fetch(TENSORRT[version], version, folder)
    return site, build_empty_libraries(site / "tensorrt_bindings" / "tensorrt.so", folder / "lib")


def list_tensorrt(version: str, folder: Path) -> dict[str, Any]:
    """Return the names that a version of TensorRT has, and how many arguments its functions take (least, most)."""
    listed: dict[str, Any] = json.loads(run_with(*bindings_of(version, folder), LIST_TENSORRT, ",".join(CLASSES)))
    return listed


def list_cuda(version: str, folder: Path) -> list[str]:
    """Return the names that a version of cuda-python has, of those that are about memory, streams and graphs."""
    listed: list[str] = json.loads(run_with(fetch(CUDA[version], version, folder), None, LIST_CUDA))
    return listed


def main() -> None:
    recording: dict[str, Any] = {"tensorrt": {}, "cuda": {}}
    for kind, versions, lister in (("tensorrt", TENSORRT, list_tensorrt), ("cuda", CUDA, list_cuda)):
        for version in versions:
            with tempfile.TemporaryDirectory() as folder:
                recording[kind][version] = lister(version, Path(folder))
    text = json.dumps(recording, indent=1, sort_keys=True)
    RECORDING.write_text(re.sub(r"\[\s+([^][]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")


if __name__ == "__main__":
    main()
