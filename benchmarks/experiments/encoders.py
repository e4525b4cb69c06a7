"""How good the neighborhoods of each encoder are: does a view find its picture, and do encoders agree.

    python benchmarks/experiments/encoders.py --data DATA [--weights WEIGHTS] [--pictures 200] [--out DIR]

DATA holds horse2zebra/ with trainA and trainB; WEIGHTS (default: DATA/../weights) the CycleGAN generators trained for
this project and SqueezeNet. Pictures: what G_A makes of the first horses, 128 x 128. The small encoder learns on zebras
(trainB), as in a job. Of every encoder:

    top 1, top 5   in how many pictures a view (a crop of 30 to 100 % of the area, mirrored or not, other colours) has
                   its own picture among the 1 or 5 most similar of all; the mean over two draws of views
    agreement      Jaccard index of the 5 nearest pictures by two encoders, mean over pictures
    seconds        of training, and of embedding all pictures once (processor time, one thread)

`random` is an embedding of random numbers: chance. Writes encoders.json and encoders.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mggc_edge.artifacts import tool_versions
from mggc_edge.jobs.encoders import simclr_settings, swav_settings
from mggc_edge.machine import this_machine
from mggc_edge.models.weights import load_network
from mggc_edge.pictures import PictureFormat, find_pictures, to_picture
from mggc_edge.pruning.mggc.augment import random_views
from mggc_edge.pruning.mggc.encoder import SmallEncoder, embed
from mggc_edge.pruning.mggc.neighborhoods import neighborhoods
from mggc_edge.pruning.mggc.resnet50 import ResNet50
from mggc_edge.pruning.mggc.simclr import SimclrTraining
from mggc_edge.pruning.mggc.swav import SwavTraining
from mggc_edge.quality.features import FeatureNetwork
from mggc_edge.settings import Settings
from mggc_edge.training.bank import Bank, FolderPictures, GivenPictures, to_levels
from mggc_edge.training.loop import Stage
from mggc_edge.training.order import step_seed
from mggc_edge.training.precision import convolution_precision

SIZE, K, DRAWS, PROJECTED = (128, 128), 5, 2, 128
GENERATOR = "horse2zebra_cyclegan/latest_net_G_A.pth"
SQUEEZENET = "squeezenet11_fp16_onnx/SqueezeNet_fp16.onnx:fire9/concat_1"
FORMAT = PictureFormat.for_channels(3)
Embed = Callable[[Tensor], Tensor]  # pictures [n, 3, H, W] in [-1, 1] -> embeddings [n, d]


class Held:
    """Pictures in one tensor."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return some of them."""
        return self.pictures[list(indices)]


def outputs(data: Path, weights: Path, count: int) -> Tensor:
    """Return what the original makes of the first horses."""
    paths = find_pictures(data / "horse2zebra/trainA")[:count]
    horses = FolderPictures(paths, SIZE, FORMAT)
    generator = load_network(weights / GENERATOR, image_size=SIZE)
    with torch.inference_mode():
        levels = [to_levels(generator(horses.batch([number])), FORMAT) for number in range(len(horses))]
    return GivenPictures(np.concatenate(levels), FORMAT).batch(range(len(horses)))


def trained(objective: str, zebras: Bank, steps: int, seed: int) -> SmallEncoder:
    """Return the small encoder after its training, as in a job."""
    settings = Settings()
    torch.manual_seed(step_seed(seed, "encoder/weights", 0))
    encoder = SmallEncoder()
    common: dict[str, Any] = {
        "seed": seed, "steps": steps, "precision": convolution_precision("auto"),
    }  # fmt: skip
    stage: Stage = (
        SwavTraining(encoder, zebras, swav_settings(settings, pretrained=False), **common)
        if objective == "swav"
        else SimclrTraining(encoder, zebras, simclr_settings(settings), **common)
    )
    for number in range(stage.steps):
        torch.manual_seed(step_seed(seed, stage.name, number))
        stage.step(number)
    return encoder.eval()


def of_module(module: torch.nn.Module) -> Embed:
    """Return an encoder's embeddings of pictures."""
    return lambda pictures: embed(module, Held(pictures))


def squeezed(network: FeatureNetwork) -> Embed:
    """Return SqueezeNet's features."""
    return lambda pictures: torch.from_numpy(network.features(to_picture(p.numpy(), FORMAT) for p in pictures))


def pixels(pictures: Tensor) -> Tensor:
    """Return all values."""
    return pictures.flatten(1)


def projected(pictures: Tensor) -> Tensor:
    """Return a random projection of all values."""
    generator = torch.Generator().manual_seed(0)
    return pixels(pictures) @ torch.randn(pictures[0].numel(), PROJECTED, generator=generator)


def chance(pictures: Tensor) -> Tensor:
    """Return numbers that know nothing of the pictures."""
    return torch.randn(len(pictures), PROJECTED)


def recall(embedding: Embed, pictures: Tensor, places: Tensor, views: list[Tensor]) -> dict[str, float]:
    """Return in how many pictures a view has its own among the most similar, mean over draws."""
    own = F.normalize(places, dim=1)
    found = {1: 0.0, K: 0.0}
    for seen in views:
        near = (F.normalize(embedding(seen), dim=1) @ own.T).topk(K, dim=1).indices
        hits = near == torch.arange(len(pictures))[:, None]
        for most in found:
            found[most] += hits[:, :most].any(dim=1).double().mean().item() / len(views)
    return {f"top_{most}": share for most, share in found.items()}


def agreement(first: Tensor, second: Tensor) -> float:
    """Return the mean Jaccard index of two neighborhoods of every picture."""
    pairs = [(set(a), set(b)) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return sum(len(a & b) / len(a | b) for a, b in pairs) / len(pairs)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--resnet50", action="store_true", help="also an untrained ResNet-50: minutes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights = arguments.weights or arguments.data.parent / "weights"
    made = outputs(arguments.data, weights, arguments.pictures)
    zebras = FolderPictures(find_pictures(arguments.data / "horse2zebra/trainB"), SIZE, FORMAT, cache_bytes=2**30)
    zebras.batch(range(len(zebras)))  # read once, before anything is timed
    torch.manual_seed(0)
    views = [random_views(made) for _ in range(DRAWS)]
    steps = Settings()["encoder.steps"]
    rows: list[dict[str, Any]] = []
    near: dict[str, Tensor] = {}

    def measure(name: str, make: Callable[[], Embed], seed: int | None = None) -> None:
        start = time.process_time()
        embedding = make()
        between = time.process_time()
        places = embedding(made)
        end = time.process_time()
        row = {"encoder": name, "seed": seed, "training_s": between - start, "embedding_s": end - between}
        rows.append({**row, **recall(embedding, made, places, views)})
        near.setdefault(name, neighborhoods(places, K))  # of the first seed
        if seed:
            rows[-1]["agreement_with_seed_0"] = agreement(near[name], neighborhoods(places, K))
        print(rows[-1], flush=True)

    for seed in range(arguments.seeds):
        measure("self (SwAV)", lambda seed=seed: of_module(trained("swav", zebras, steps, seed)), seed)  # type: ignore[misc]
        measure("self (SimCLR)", lambda seed=seed: of_module(trained("simclr", zebras, steps, seed)), seed)  # type: ignore[misc]
    torch.manual_seed(0)
    untrained = SmallEncoder().eval()
    measure("self, untrained", lambda: of_module(untrained))
    if arguments.resnet50:
        measure("ResNet-50, untrained", lambda: of_module(ResNet50().eval()))
    with FeatureNetwork(f"{weights / SQUEEZENET}", preprocessing="caffe", threads=1) as network:
        measure("onnx: SqueezeNet fire9", lambda: squeezed(network))
    measure("random projection", lambda: projected)
    measure("pixels", lambda: pixels)
    measure("random", lambda: chance)

    table = {a: {b: agreement(near[a], near[b]) for b in near} for a in near}
    document = {
        "command": f"python benchmarks/experiments/encoders.py --data DATA --pictures {arguments.pictures} "
        f"--seeds {arguments.seeds}" + (" --resnet50" if arguments.resnet50 else ""),
        "machine": this_machine().processor,
        "threads": 1,
        "tools": tool_versions(),
        "pictures": len(made),
        "steps": steps,
        "settings": {name: value for name, value in Settings().to_json().items() if name.startswith("encoder.")},
        "precision": convolution_precision("auto"),
        "rows": rows,
        "agreement": table,
    }
    (arguments.out / "encoders.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (arguments.out / "encoders.md").write_text(page(rows, table, document), encoding="utf-8")


def page(rows: Sequence[dict[str, Any]], table: dict[str, dict[str, float]], document: dict[str, Any]) -> str:
    """Return the tables."""
    what = (
        f"{document['pictures']} outputs of the horse2zebra generator at 128 x 128, k = {K}; the small encoder: "
        f"{document['steps']} steps in {document['precision']} on 300 zebras. `{document['command']}`"
    )
    lines = [
        what,
        "",
        "| encoder | seed | top 1 | top 5 | training | embedding | agreement with seed 0 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        seed = "" if row["seed"] is None else row["seed"]
        same = f"{row['agreement_with_seed_0']:.3f}" if "agreement_with_seed_0" in row else ""
        lines.append(
            f"| {row['encoder']} | {seed} | {row['top_1']:.3f} | {row['top_5']:.3f} | {row['training_s']:.1f} s "
            f"| {row['embedding_s']:.2f} s | {same} |"
        )
    lines += ["", "Agreement of neighborhoods (Jaccard index; seed 0):", "", f"| | {' | '.join(table)} |"]
    lines.append("|---" * (len(table) + 1) + "|")
    lines += [f"| {a} | {' | '.join(f'{table[a][b]:.3f}' for b in table)} |" for a in table]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
