"""The picture pool of CycleGAN: a discriminator also sees what was generated before (Shrivastava et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor


class PicturePool:
    """Keeps up to `size` generated pictures; each new one is, every other time, exchanged for one of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: list[Tensor] = []

    def exchange(self, pictures: Tensor, draws: Iterable[np.random.Generator]) -> Tensor:
        """Return as many pictures as were given, [B, C, H, W]; `draws` are the random numbers of each."""
        if self.size == 0:
            return pictures
        shown = []
        for picture, rng in zip(pictures.detach(), draws, strict=True):
            if len(self._kept) < self.size:
                self._kept.append(picture.clone())
                shown.append(picture)
            elif rng.random() < 0.5:
                place = int(rng.integers(self.size))
                shown.append(self._kept[place].to(picture.device))  # it may have been read from a state
                self._kept[place] = picture.clone()
            else:
                shown.append(picture)
        return torch.stack(shown)

    def state(self) -> dict[str, Tensor]:
        """Return what is kept."""
        return {"kept": torch.stack(self._kept)} if self._kept else {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._kept = [picture.clone() for picture in tensors["kept"]] if "kept" in tensors else []
