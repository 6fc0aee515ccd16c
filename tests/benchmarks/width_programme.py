"""How long the width programme takes on nets of a realistic shape: random importance, staircases for costs.

Every width is charged in whole blocks, and every layer for being there. The shapes are those of a U-Net of depth 3 at
256 x 256, a ResNet-56 on CIFAR-10, and a MobileNetV3-Large with a segmentation head at 512 x 512. Asked for are
0.3, 0.5 and 0.7 of the dense net's latency, alone and with limits on everything else.
"""

from __future__ import annotations

import time
from statistics import quantiles

import numpy as np

from edgeslim.trainer.budget.programme import Charge, Cost, Ladder, Moment, Problem, Total, solve, usage
from edgeslim.trainer.budget.programme.formulate import formulate

RUNGS, SEEDS, SHARES, SECONDS = 16, 3, (0.3, 0.5, 0.7), 30.0
MACS_PER_US, BASE_US = 4e4, 4.0
ALSO = {"macs": 1.05, "parameters": 1.0, "file_bytes": 1.2, "peak_bytes": 1.5}
"""Other resources: their share of the dense net's, in shares of latency."""
BOTTLENECKS = (
    # kernel, expanded, out, squeezed, stride
    *((3, 16, 16, False, 1), (3, 64, 24, False, 2), (3, 72, 24, False, 1), (5, 72, 40, True, 2), (5, 120, 40, True, 1)),
    *((5, 120, 40, True, 1), (3, 240, 80, False, 2), (3, 200, 80, False, 1), (3, 184, 80, False, 1)),
    *((3, 184, 80, False, 1), (3, 480, 112, True, 1), (3, 672, 112, True, 1), (5, 672, 160, True, 1)),
    *((5, 960, 160, True, 1), (5, 960, 160, True, 1)),
)


def main() -> None:
    """Print a row for every net and set of limits."""
    for name, build in {"U-Net": unet, "ResNet-56": resnet56, "MobileNetV3-Large LRASPP": lraspp}.items():
        for limited in (("latency_us",), ("latency_us", *ALSO)):
            taken, gaps, unproven = [], [], 0
            for seed in range(SEEDS):
                net = build(np.random.default_rng(seed))
                for share in SHARES:
                    problem = net.problem(share, limited)
                    started = time.perf_counter()
                    found = solve(problem, seconds=SECONDS)
                    taken.append(time.perf_counter() - started)
                    gaps.append(found.gap)
                    unproven += not found.proven
            low, middle, high = quantiles(taken, n=4)
            size = f"{len(problem.ladders)} families, {formulate(problem, limited).columns} columns"
            limits = f"{len(limited)} limits" if len(limited) > 1 else "1 limit"
            print(
                f"| widths of a {name}, {limits} | {middle:.2f} s ({low:.2f} to {high:.2f}) | {size}; slowest "
                f"{max(taken):.2f} s, largest gap {max(gaps):.1e}, unproven {unproven} of {len(taken)} |"
            )


class Net:
    """Collects families, layers and what is held while they run."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._ladders: list[Ladder] = []
        self._charges: list[Charge] = []
        self._moments: list[Moment] = []

    def family(self, width: int) -> int:
        """Up to RUNGS widths; scores are log-normal, in another spread and at another level for each family."""
        step = -(-width // RUNGS)
        step = step if step <= 2 else -(-step // 4) * 4
        widths = sorted({min(width, reached) for reached in range(step, width + step, step)})
        scores = np.sort(self._rng.lognormal(0.0, self._rng.uniform(0.3, 1.2), width))[::-1]
        kept = np.cumsum(scores) * self._rng.lognormal(2.0, 0.5) / width
        values = tuple(float(kept[reached - 1]) for reached in widths)
        self._ladders.append(Ladder(widths=tuple(widths), values=values))
        return len(self._ladders) - 1

    def convolution(self, inputs: Total, outputs: Total, positions: int, kernel: int) -> None:
        """kernel: its positions, 9 of a 3 x 3."""
        macs = float(positions * kernel)
        self._charge(
            inputs,
            outputs,
            lambda a, b: BASE_US + _blocks(a, 8) * _blocks(b, 16) * (macs / MACS_PER_US) + (a + b) * positions * 1e-4,
            lambda a, b: a * b * macs,
            lambda a, b: a * b * float(kernel) + 2 * b,
        )

    def depthwise(self, outputs: Total, positions: int, kernel: int) -> None:
        """Also a pooling or a concatenation, as far as it costs anything."""
        macs = float(positions * kernel)
        self._charge(
            Total(),
            outputs,
            lambda a, b: 2.0 + _blocks(b, 8) * macs * 1e-4,
            lambda a, b: b * macs,
            lambda a, b: b * float(kernel + 2),
        )

    def hold(self, **per_channel: float) -> None:
        """What is in memory at once: `f3=4096` are 4096 bytes for every channel of family 3."""
        self._moments.append(Moment(per_channel={int(name[1:]): each for name, each in per_channel.items()}))

    def problem(self, share: float, limited: tuple[str, ...]) -> Problem:
        """Limits at about `share` of what the dense net uses."""
        ladders, charges, moments = tuple(self._ladders), tuple(self._charges), {"peak_bytes": tuple(self._moments)}
        free = Problem(ladders=ladders, charges=charges, moments=moments)
        dense = usage(free, [ladder.widths[-1] for ladder in ladders])
        limits = {name: dense[name] * min(share * ALSO.get(name, 1.0), 1.0) for name in limited}
        return Problem(ladders=ladders, charges=charges, moments=moments, limits=limits)

    def _charge(self, inputs: Total, outputs: Total, latency: Cost, macs: Cost, parameters: Cost) -> None:
        costs: dict[str, Cost] = {
            "latency_us": latency,
            "macs": macs,
            "parameters": parameters,
            "file_bytes": lambda a, b: 4.0 * np.asarray(parameters(a, b)),
        }
        name = f"layer {len(self._charges)}"
        self._charges.append(Charge(name=name, inputs=inputs, outputs=outputs, costs=costs))


def unet(rng: np.random.Generator, width: int = 32, depth: int = 3, size: int = 256) -> Net:
    """17 families, 3 concatenations."""
    net, positions = Net(rng), size * size
    skips: list[tuple[int, int]] = []

    def double(inputs: Total, wide: int) -> int:
        first, second = net.family(wide), net.family(wide)
        net.convolution(inputs, _of(first), positions, 9)
        net.convolution(_of(first), _of(second), positions, 9)
        held = {f"f{family}": 4.0 * there for family, there in skips}
        net.hold(**held, **{f"f{first}": 4.0 * positions, f"f{second}": 4.0 * positions})
        return second

    inputs = Total(constant=3)
    for level in range(depth):
        skip = double(inputs, width * 2**level)
        skips.append((skip, positions))
        positions //= 4
        net.depthwise(_of(skip), positions, 4)
        inputs = _of(skip)
    below = double(inputs, width * 2**depth)
    for level in reversed(range(depth)):
        up = net.family(width * 2**level)
        net.convolution(_of(below), _of(up), positions, 4)
        positions *= 4
        skip, _ = skips.pop()
        net.depthwise(_of(skip, up), positions, 1)
        below = double(_of(skip, up), width * 2**level)
    net.convolution(_of(below), Total(constant=2), positions, 1)
    return net


def resnet56(rng: np.random.Generator) -> Net:
    """30 families, of which three run through nine blocks each."""
    net, positions = Net(rng), 32 * 32
    before: int | None = None
    for width in (16, 32, 64):
        stream = net.family(width)
        if before is None:
            net.convolution(Total(constant=3), _of(stream), positions, 9)
            before = stream
        for _ in range(9):
            if before != stream:
                positions //= 4
                net.convolution(_of(before), _of(stream), positions, 1)
            inner = net.family(width)
            net.convolution(_of(before), _of(inner), positions, 9)
            net.convolution(_of(inner), _of(stream), positions, 9)
            net.hold(**{f"f{stream}": 8.0 * positions, f"f{inner}": 4.0 * positions})
            before = stream
    net.convolution(_of(stream), Total(constant=10), 1, 1)
    return net


def lraspp(rng: np.random.Generator, size: int = 512) -> Net:
    """Some thirty families, most of them as wide as their bottleneck is inside."""
    net, positions = Net(rng), (size // 2) ** 2
    stream, width, low = net.family(16), 16, 0
    net.convolution(Total(constant=3), _of(stream), positions, 9)
    for kernel, expanded, out, squeezed, stride in BOTTLENECKS:
        inner = stream if expanded == width else net.family(expanded)
        if inner != stream:
            net.convolution(_of(stream), _of(inner), positions, 1)
        positions //= stride * stride
        net.depthwise(_of(inner), positions, kernel * kernel)
        if squeezed:
            gate = net.family(expanded // 4)
            net.convolution(_of(inner), _of(gate), 1, 1)
            net.convolution(_of(gate), _of(inner), 1, 1)
            net.depthwise(_of(inner), positions, 1)
        after = stream if out == width and stride == 1 else net.family(out)
        net.convolution(_of(inner), _of(after), positions, 1)
        held = {f"f{stream}": 8.0} if after == stream else {f"f{after}": 4.0}
        held[f"f{inner}"] = held.get(f"f{inner}", 0.0) + 4.0
        net.hold(**{name: each * positions for name, each in held.items()})
        stream, width = after, out
        low = stream if positions == (size // 8) ** 2 else low
    last, head = net.family(960), net.family(128)
    net.convolution(_of(stream), _of(last), positions, 1)
    net.convolution(_of(last), _of(head), positions, 1)
    net.convolution(_of(last), _of(head), 1, 1)
    net.convolution(_of(low), Total(constant=12), (size // 8) ** 2, 1)
    net.convolution(_of(head), Total(constant=12), positions, 1)
    return net


def _blocks(channels: np.ndarray, size: int) -> np.ndarray:
    """Channels as they are charged: in whole blocks."""
    blocks: np.ndarray = -(-channels // size) * size
    return blocks


def _of(*families: int) -> Total:
    return Total(coefficients={family: families.count(family) for family in families})


if __name__ == "__main__":
    main()
