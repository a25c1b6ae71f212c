"""Chats and documents in packs: how full they are beside OpenOneRec's, and what planning an epoch takes."""

import numpy as np

from benchmarks.measure import Meter, must_agree
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train.data.tokens.mixture import Entry, Mixture
from pixelrec_train.data.tokens.packs import pack

# Mean and spread of drawn tokens per sample, room of a pack: OpenOneRec's, and a small one.
SHAPES = ((500, 1.0, 32_768), (1000, 1.0, 32_768), (3000, 0.6, 32_768), (3000, 1.0, 32_768), (300, 0.8, 2048))


@benchmark(unit="share", goal=Goal("value", at_least=0.98), tiny={"samples": 2_000})
def pack_fill(inputs, samples=200_000):
    """Of the packs' room that holds tokens, at the worst of SHAPES; beside it greedy packs, uncut."""
    return worst_fill("best_fit", samples)


@benchmark(unit="share", goal=Goal("value", at_least=0.98), tiny={"samples": 2_000})
def pack_fill_even(inputs, samples=200_000):
    """The same of packs that are a like mix of lengths."""
    return worst_fill("even", samples)


def worst_fill(how, samples):
    rows = []
    for mean, spread, room in SHAPES:
        lengths = drawn(samples, mean, spread, room)
        ours, greedy = (pack(lengths, room, way) for way in (how, "greedy"))
        must_agree("tokens of all packs", ours.length.sum(), greedy.length.sum(), 0)
        cut = pack(lengths, room, "greedy", cut=True)
        lost, samples_cut = 1 - cut.length.sum() / lengths.sum(), np.mean(cut.length < lengths)
        rows.append((ours.fill(room), greedy.fill(room), lost, samples_cut))
    fills, greedy, lost, samples_cut = zip(*rows, strict=True)
    worst = int(np.argmin(fills))
    note = (
        f"{samples:,} samples, {len(SHAPES)} shapes, worst mean {SHAPES[worst][0]} of {SHAPES[worst][2]:,}; "
        f"greedy {span(greedy)}; its cut loses {span(lost)} of all tokens, of {span(samples_cut)} of samples"
    )
    return Result(fills[worst], greedy[worst], fills[worst] / greedy[worst], note=note)


@benchmark(unit="CPU s", goal=Goal("value", at_most=5), tiny={"samples": 10_000})
def epoch_plan(inputs, samples=10_000_000, mean=1000, spread=1.0, room=32_768):
    """Order and packs of one epoch, of two entries; lengths are there already. The slower way of packing."""
    lengths, usable = drawn(samples, mean, spread, room), np.ones(samples, bool)
    lengths = np.resize(lengths, samples)  # some were longer than a pack
    entries = [Entry(0, samples // 2, weight=1.0), Entry(samples // 2, samples, weight=3.0)]
    packing = {}
    with Meter() as mixing:
        order = Mixture(entries, usable).order(seed=0, epoch=1)
    for how in ("best_fit", "even"):
        with Meter() as packing[how]:
            packs = pack(lengths[order], room, how)
    slower = max(packing.values(), key=lambda meter: meter.cpu)
    note = (
        f"{samples:,} samples, {len(packs):,} packs; mixture {mixing.cpu:.2f} s, "
        + ", ".join(f"{how} {meter.cpu:.2f} s" for how, meter in packing.items())
        + f"; {max(meter.growth_gb for meter in (mixing, *packing.values())):.2f} GB at most"
    )
    return Result(mixing.cpu + slower.cpu, wall=mixing.wall + slower.wall, note=note)


def drawn(samples, mean, spread, room):
    """[<= samples] log-normal lengths; those that no pack can hold are left out, as in training."""
    lengths = np.random.default_rng(0).lognormal(np.log(mean) - spread**2 / 2, spread, samples)
    return np.ceil(lengths[lengths <= room]).astype(np.int32)


def span(shares):
    return f"{min(shares):.1%} to {max(shares):.1%}"
