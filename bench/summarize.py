#!/usr/bin/env python3
"""Makes docs/benchmarks.md from bench/results/*.json: every point, its bound, met or not."""

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(HERE, "results")

TITLES = (
    ("clone_latency", "Clone latency"), ("many", "Many clones"), ("dirt", "The dirt test"),
    ("dirt_rewrite", "The dirt test, more rewritten"),
    ("dirt_alpha", "The dirt test over α"), ("bigger_than_memory", "Bigger than memory"),
    ("durability", "What durability costs"),
    ("peers", "Beside other file systems"), ("remount", "Remount"),
    ("bad_inputs", "Bad inputs and flipped bits"))

HEAD = """# Measurements

Made by `bench/summarize.py` from `bench/results/*.json`; each section names the run that made it.
All runs are through a real mount of a release build. `bench/run_all CAW` runs them again at full
size. A bound that is not met is marked. Times depend on the machine and on what else it did; counts
do not.
"""


def arguments(result):
    words = [f"--{key.replace('_', '-')} {value}" for key, value in result["arguments"].items()
             if value not in ("", False)]
    return " ".join(words)


def section(title, result):
    machine = result["machine"]
    lines = [f"## {title}", "",
             f"{result['date']}, commit {result['commit']}; {machine['cpus']} CPUs "
             f"({machine['cpu']}, virtual), {machine['memory_mib'] / 1024:.0f} GiB, kernel "
             f"{machine['kernel']}. `{arguments(result)}`", "",
             "| point | measured | | bound | |", "|---|--:|---|---|---|"]
    for point in result["points"]:
        value = point["value"]
        if isinstance(value, float):
            value = f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
        verdict = "" if not point["bound"] else "met" if point["ok"] else "**not met**"
        lines.append(f"| {point['name']} | {value} | {point['unit']} | {point['bound']} | "
                     f"{verdict} |")
    for note in result["notes"]:
        lines.append(f"\n{note}")
    return lines + [""]


def main():
    lines = [HEAD]
    for name, title in TITLES:
        path = os.path.join(RESULTS, f"{name}.json")
        if not os.path.exists(path):
            continue
        with open(path) as file:
            lines += section(title, json.load(file))
        svg = os.path.join(RESULTS, f"{name}.svg")
        if os.path.exists(svg):
            lines += [f"![{title}](../bench/results/{name}.svg)", ""]
    with open(os.path.join(HERE, "..", "docs", "benchmarks.md"), "w") as out:
        out.write("\n".join(lines).rstrip() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
