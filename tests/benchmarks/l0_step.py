"""What the l0 penalty adds to a training step; the promise is under 10 %."""

from __future__ import annotations

import time
from statistics import median, quantiles

import torch
from torch.nn import functional as F

from edgeslim.trainer.models.unet import UNet
from edgeslim.trainer.regularizers import L0, view_of

ROUNDS = 12


def main() -> None:
    """Print the penalised step's time over the plain step's, taken in turns."""
    torch.manual_seed(0)
    net = UNet(width=32, depth=2)
    optimizer = torch.optim.AdamW(net.parameters())
    images, masks = torch.randn(8, 3, 96, 96), torch.randint(0, 2, (8, 96, 96))
    penalty = L0()

    def step(penalised: bool) -> float:
        started = time.perf_counter()
        loss = F.cross_entropy(net(images), masks)
        if penalised:
            loss = loss + penalty.penalty(view_of(net))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return time.perf_counter() - started

    step(True), step(False)
    pairs = [(step(True), step(False)) if i % 2 else (step(False), step(True))[::-1] for i in range(ROUNDS)]
    ratios = [a / b - 1 for a, b in pairs]
    low, middle, high = quantiles(ratios, n=4)
    plain = median(b for _, b in pairs)
    print(f"| l0 adds to a step | {middle:+.1%} ({low:+.1%} to {high:+.1%}) | to {plain:.3f} s, n = {ROUNDS} |")
