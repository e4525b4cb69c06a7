"""Time and memory of the exact search for neighbors at full size.

    python benchmarks/experiments/neighborhoods.py [--count 50000] [--size 2048] [--threads 2] [--out DIR]

Embeddings are random directions around a few hundred centres. The search runs in this process, whose peak of resident
memory, everything included, is what is reported. Of 50 pictures all cosines are computed in float64 and must give the
same neighbors. Writes neighborhoods.json and neighborhoods.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812

from mggc_edge.artifacts import tool_versions
from mggc_edge.machine import this_machine
from mggc_edge.pruning.mggc.neighborhoods import neighborhoods

CENTRES, CHECKED, K = 300, 50, 5


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    count, size = arguments.count, arguments.size
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CENTRES, size, generator=generator)
    embeddings = torch.empty(count, size)
    for start in range(0, count, 1000):
        rows = embeddings[start : start + 1000]
        rows.normal_(generator=generator)
        rows += centres[torch.randint(0, CENTRES, (len(rows),), generator=generator)]
    start, cpu = time.perf_counter(), time.process_time()
    found = neighborhoods(embeddings, K)
    seconds, busy = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    wrong = 0
    for row in torch.randint(0, count, (CHECKED,), generator=generator).tolist():
        center = F.normalize(embeddings[row].double(), dim=0)
        cosines = torch.cat([F.normalize(part.double(), dim=1) @ center for part in embeddings.split(2000)])
        cosines[row] = -2
        wrong += found[row].tolist() != cosines.topk(K).indices.tolist()
    document = {
        "command": "python benchmarks/experiments/neighborhoods.py",
        "machine": this_machine().processor,
        "threads": arguments.threads,
        "tools": tool_versions(),
        "count": count,
        "size": size,
        "k": K,
        "seconds": seconds,
        "processor_seconds": busy,
        "peak_rss_bytes": peak,
        "checked": CHECKED,
        "wrong": wrong,
    }
    print(document)
    (arguments.out / "neighborhoods.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    text = (
        "| embeddings | k | threads | time | processor time | peak memory of the process | checked | wrong |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|\n"
        f"| {count:,} x {size:,} | {K} | {arguments.threads} | {seconds:.0f} s | {busy:.0f} s | {peak / 2**30:.2f} GiB "
        f"| {CHECKED} | {wrong} |\n"
    )
    (arguments.out / "neighborhoods.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
