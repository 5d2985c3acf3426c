#!/usr/bin/env python3
"""Turns out/bench/*.json into docs/figures.md. Run `make bench` first; usage: tools/figures.py [OUT_BENCH] > docs/figures.md"""
import json
import sys
from pathlib import Path

ORDER = ["demo", "demo-conv", "certify", "local", "train", "train-conv", "train-sequence", "exchange", "shrink", "online", "serve", "serve-life"]
INTRO = {
    "demo": "`make bench-demo`. The ladder's accuracy on the 10,000 test images, and the cascade (device, edge, region, global) against sending\n"
    "everything to the global tier. Round trips are drawn uniformly from the default topology; a ratio is the cloud's value over the cascade's.",
    "demo-conv": "`make bench-demo-conv`. The same cascade with three convolutional nets as the global tier and a smaller one as the region's; edge and\n"
    "device are perceptrons distilled from the three. The goals are those of training; the cascade's figures stand for themselves: the better\n"
    "the top, the more the lower tiers must leave to it.",
    "certify": "`make bench-certify`. 1,000 calibration sets are drawn with replacement from the real model outputs on 20,000 images that no\n"
    "training saw, certified as `ganglion calibrate` does, and judged exactly on that population. At most 130 sets may break their promise\n"
    "(the .999 quantile of Bin(1000, .1)); the plug-in rule and three planted mistakes must exceed that. The ratio is to the oracle's share.",
    "local": "`make bench-local`. `Decider::Decide` that answers at the first stage against the bare run of the same model through ONNX Runtime's\n"
    "C interface, alternating in one process. Overhead is the difference of the medians.",
    "train": "`make bench-train`. A training step (gradients and update) on one thread against PyTorch of Debian 12 with OpenBLAS, in turns of 100\n"
    "steps. A ratio is PyTorch's time over ours.",
    "train-conv": "`make bench-train`. The same for convolutional nets: FedAvg's (two 5x5 convolutions, 1.66 M parameters) and one of four 3x3\n"
    "convolutions with batch normalisation.",
    "train-sequence": "`make bench-train`. The same for recurrent and attention models; and a step whose gradients are clipped example by example\n"
    "against the plain step (a ratio is the clipped step's time over the plain one's).",
    "exchange": "`make bench-exchange`. Processes that train one model together: throughput of two against one, bytes by compression, what a killed\n"
    "or a slow worker does.",
    "shrink": "`make bench-shrink`. Students of the ladder's ensemble on Fashion-MNIST against the same nets trained alone, eight bits against float,\n"
    "and what pruning, cutting and slimming cost, on the 10,000 test images. Ratios are to the float model, sizes to it or to the teacher.",
    "online": "`make bench-online`. Ten million examples of twelve features and a pair, made by a generator, and three million flights in the\n"
    "order of time, learned here and by VW 9.11 from the same files: updates a second of processor time (the ratio is to VW's), progressive\n"
    "loss. What is forgotten: loss on an old concept after 20,000 examples of a new one, less before; ratios to the unprotected model.",
    "serve": "`make bench-serve`, first half. A node against echoes of equal bytes in the same build, two cores shared with the client; each\n"
    "ratio is of medians of alternating runs. HTTP is loaded by wrk, shared memory and the mailbox by a blocking client on both sides.",
    "serve-life": "`make bench-serve`, second half: real processes under load, overloaded, reloaded, with dead parents, killed and brought back.\n"
    "\"processors that others used\" says how far the machine was not quiet.",
}


def number(x):
    return f"{x:,.4g}" if abs(x) < 1e5 else f"{x:,.0f}"


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/bench")
    print("# Figures, as measured\n")
    print("Written by `tools/figures.py` from what `make bench` left under `out/bench`. Ratios are paired in one run on one machine; absolute")
    print("times are that machine's and vary between runs. A goal with an x is about the ratio.\n")
    for name in ORDER:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        report = json.loads(path.read_text())
        print(f"## {name}\n\n{INTRO[name]}\n\nMachine: {report['machine']}. Commit: {report['commit']}.\n")
        print("| figure | measured | unit | ratio | goal | |\n|---|---|---|---|---|---|")
        for f in report["figures"]:
            ratio = "" if f["ratio"] is None else f"{f['ratio']:.2f}x"
            goal = f["goal"] or ""
            holds = "" if f["holds"] is None else "holds" if f["holds"] else "**missed**"
            print(f"| {f['id']} | {number(f['value'])} | {f['unit']} | {ratio} | {goal} | {holds} |")
        print()


main()
