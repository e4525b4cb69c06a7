"""Generators that others trained, with pictures to study them on; both lie in the folder of shared data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A generator and its pictures, below the data folder; `half`: of a pair, see `read_picture`."""

    name: str
    checkpoint: str
    pictures: str
    half: str
    image_size: int


CASES = (
    Case("CartoonGAN Hayao", "weights/cartoongan_hayao/net_G.pth", "data/horse2zebra/trainA", "whole", 96),
    Case("facades U-Net-128", "weights/facades_pix2pix/latest_net_G.pth", "data/facades/train", "right", 128),
    Case(
        "horse2zebra ResNet-6",
        "weights/horse2zebra_cyclegan/latest_net_G_A.pth",
        "data/horse2zebra/trainA",
        "whole",
        128,
    ),
)
