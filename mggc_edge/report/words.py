"""What a run came to, in words: title, headline, and the names of things."""

from __future__ import annotations

import re

from mggc_edge.report.facts import Latency, Plan, Quality, RunFacts
from mggc_edge.report.numbers import count, decibel, interval, milliseconds, percent, plain

ENGINES = {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT", "openvino": "OpenVINO", "ort-mobile": "ORT mobile"}
FAMILIES = {"cartoongan": "CartoonGAN", "patchgan": "PatchGAN"}
UNCLEAR = "these samples cannot tell whether it is faster"
IMPLAUSIBLE = "That is more speed than multiplications were saved, which is implausible."
LOSSES = {"loss_g": "generator", "loss_d": "discriminator"}


def network(plan: Plan) -> str:
    """Return the usual name of a network: ResNet-9, U-Net-256."""
    if plan.family == "resnet":
        return f"ResNet-{plan.blocks}"
    if plan.family == "unet" and 1 <= plan.blocks <= 16:
        return f"U-Net-{2**plan.blocks}"
    return FAMILIES.get(plan.family, plan.family)


def title(facts: RunFacts) -> str:
    """Return the page's title."""
    return f"{network(facts.plan)} generator at {percent(facts.plan.budget_met)} of its MACs"


def headline(facts: RunFacts) -> str:
    """Return the result in sentences: MACs, latency with its interval, PSNR; what is not known is left out."""
    parts = [_macs(facts)]
    if facts.latency is not None:
        parts.append(_speed(facts.latency))
    if facts.quality is not None:
        parts.append(_likeness(facts.quality))
    return " ".join(part for part in parts if part)


def _macs(facts: RunFacts) -> str:
    plan = facts.plan
    before, after = facts.original.macs(plan.convention), facts.compressed.macs(plan.convention)
    at = f"at {image_size(plan)}"
    if not before or not after:
        return f"The plan keeps {percent(plan.budget_met)} of the generator\u2019s multiply\u2013accumulates {at}."
    change = times(before / after, "fewer", "more")
    return f"The compressed generator needs {change} MACs: {count(after)} instead of {count(before)} {at}."


def _speed(latency: Latency) -> str:
    before, after, speedup = latency.original_ms, latency.compressed_ms, latency.speedup
    if before is None or after is None or not speedup:
        return ""
    where = place(latency)
    change = f"from {milliseconds(before)} to {milliseconds(after)} a picture{where}"
    ends = latency.bounds
    if latency.disturbed:
        return f"Its latency goes {change}, but {unclear(latency)}."
    if not latency.told_apart or latency.verdict == "same":
        what = f"Its latency goes {change}, a ratio of {plain(speedup)}" + (
            "" if ends is None else f" [{latency.level}: {interval(ends)}]"
        )
        return f"{what}: {'it is as fast as the original' if latency.told_apart else unclear(latency)}."
    bracket = ""
    if ends is not None:
        bracket = f" [{latency.level}: {interval(ends if speedup >= 1 else (1 / ends[1], 1 / ends[0]))}]"
    doubt = f" {IMPLAUSIBLE}" if latency.implausible else ""
    return f"It runs {times(speedup, f'faster{bracket}', f'slower{bracket}')}, {change}.{doubt}"


def unclear(latency: Latency) -> str:
    """Return that the samples cannot tell, and why if the benchmark says it."""
    return UNCLEAR + (f": {latency.reason}" if latency.reason else "")


def _likeness(quality: Quality) -> str:
    if quality.psnr_to_original is None:
        return "Its pictures equal the original\u2019s." if quality.identical else ""
    over = "" if quality.pictures is None else f" over {quality.pictures:,} {tested(quality)}"
    return f"Its pictures are {decibel(quality.psnr_to_original)} PSNR from the original\u2019s{over}."


def tested(quality: Quality) -> str:
    """Return what the quality was measured on: "test pictures"."""
    noun = "picture" if quality.pictures == 1 else "pictures"
    kind = {"test": "test", "held out": "held-out", "built-in": "built-in"}.get(quality.where or "", "")
    return f"{kind} {noun}".strip()


def times(ratio: float, better: str, worse: str) -> str:
    """Return a ratio in words: "20.4 times fewer", or "1.2 times more" where it is below 1."""
    if f"{ratio:.3g}" == "1":
        return f"1.00 times {better}"
    return f"{plain(ratio)} times {better}" if ratio > 1 else f"{plain(1 / ratio)} times {worse}"


def place(latency: Latency) -> str:
    """Return where a latency was measured: " on x86 with ONNX Runtime in fp32"."""
    engine, other = (ENGINES.get(name or "", name) for name in (latency.runtime, latency.original_runtime))
    text = f" on {latency.device}" if latency.device else ""
    text += f" with {engine}" if engine else ""
    text += f" in {latency.precision}" if latency.precision and text else ""
    if other in (None, engine):
        return text
    return f"{text}, against the original with {other}"


def image_size(plan: Plan) -> str:
    """Return the picture size of a plan: 256 x 256."""
    return f"{plan.image_size[0]}\u00a0\u00d7\u00a0{plan.image_size[1]}"


def loss_name(key: str) -> str:
    """Return the label of a loss: "loss_g" -> "generator", "loss_l1" -> "L1"."""
    if key in LOSSES:
        return LOSSES[key]
    rest = key.removeprefix("loss_").replace("_", " ")
    return rest.upper() if re.fullmatch(r"[a-z]\d", rest) else rest
