"""Statistics, the list of measured points with their bounds, JSON, tables and SVG curves."""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys


def median(values):
    return statistics.median(values) if values else 0


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def summary_us(nanoseconds):
    """Median, 90th percentile and worst in microseconds."""
    us = [value / 1000 for value in nanoseconds]
    return {"count": len(us), "median_us": round(median(us), 1),
            "p90_us": round(percentile(us, 0.9), 1), "worst_us": round(max(us, default=0), 1)}


def _first_line(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True,
                              cwd=os.path.dirname(os.path.abspath(__file__))).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(l.split(":")[1].strip() for l in lines if l.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


class Report:
    """Points: (name, value, unit, bound, ok).  A `timed` point's bound fails the run only where
    times are enforced: counters gate, seconds inform."""

    def __init__(self, name, args):
        self.name = name
        self.enforce_times = getattr(args, "enforce_times", False)
        self.output = getattr(args, "output", None)
        self.commit = getattr(args, "commit", "")
        self.points = []
        self.series = {}
        self.notes = []
        self.arguments = {k: v for k, v in vars(args).items()
                          if isinstance(v, (int, float, str, bool))}

    def point(self, name, value, unit="", at_most=None, at_least=None, equals=None, timed=False):
        ok = True
        bound = ""
        if at_most is not None:
            ok, bound = value <= at_most, f"<= {at_most:g}"
        elif at_least is not None:
            ok, bound = value >= at_least, f">= {at_least:g}"
        elif equals is not None:
            ok, bound = value == equals, f"= {equals}"
        if isinstance(value, float):
            value = round(value, 3)
        self.points.append(dict(name=name, value=value, unit=unit, bound=bound, ok=bool(ok),
                                timed=timed))
        print(f"  {name:58s} {value!s:>12} {unit:8s} {bound:12s} "
              f"{'' if not bound else 'ok' if ok else 'NOT MET'}", flush=True)
        return ok

    def note(self, text):
        self.notes.append(text)
        print(f"  ({text})", flush=True)

    def finish(self):
        """Writes the JSON, returns the exit code."""
        failed = [p for p in self.points if not p["ok"] and (self.enforce_times or not p["timed"])]
        missed = [p["name"] for p in self.points if not p["ok"]]
        result = {
            "name": self.name,
            "commit": self.commit or _first_line(["git", "rev-parse", "--short", "HEAD"]),
            "date": datetime.date.today().isoformat(),
            "machine": {"kernel": ".".join(platform.release().split(".")[:2]), "cpu": _cpu(),
                        "cpus": os.cpu_count(),
                        "memory_mib": os.sysconf("SC_PAGE_SIZE") *
                        os.sysconf("SC_PHYS_PAGES") >> 20},
            "arguments": self.arguments, "points": self.points, "notes": self.notes,
            "series": self.series,
        }
        for key in ("caw", "dir", "output", "commit"):
            result["arguments"].pop(key, None)
        if self.output:
            os.makedirs(os.path.dirname(os.path.abspath(self.output)), exist_ok=True)
            with open(self.output, "w") as out:
                json.dump(result, out, indent=1)
                out.write("\n")
        if missed:
            print(f"{self.name}: not met: {', '.join(missed)}", file=sys.stderr)
        return 1 if failed else 0


def write_csv(path, header, rows):
    with open(path, "w") as out:
        out.write(",".join(header) + "\n")
        for row in rows:
            out.write(",".join(str(v) for v in row) + "\n")


COLOURS = ("#2060b0", "#b03030", "#208040", "#a06000", "#7040a0", "#008080", "#555555")


def _ticks(top):
    step = 10 ** len(str(int(top))) / 10 if top >= 1 else 0.1
    for divisor in (1, 2, 5, 10):
        if top / (step / divisor) >= 4:
            return step / divisor
    return step


def write_svg(path, title, x_label, panels):
    """`panels`: list of (y label, {series name: [(x, y), ...]}), one chart each, side by side."""
    width, height, margin = 420, 300, 56
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(panels)} '
             f'{height + 40}" font-family="sans-serif" font-size="11">',
             f'<rect width="{width * len(panels)}" height="{height + 40}" fill="#fff"/>',
             f'<text x="8" y="18" font-size="14" font-weight="bold">{title}</text>']
    for index, (y_label, series) in enumerate(panels):
        left, top, bottom = index * width + margin, 40, height - 10
        right = (index + 1) * width - 16
        points = [p for values in series.values() for p in values]
        if not points:
            continue
        x_top = max(p[0] for p in points) or 1
        y_top = (max(p[1] for p in points) or 1) * 1.1

        def place(x, y):
            return (left + (right - left) * x / x_top, bottom - (bottom - top) * y / y_top)
        tick = _ticks(y_top)
        value = 0
        while value <= y_top:
            y = place(0, value)[1]
            parts.append(f'<path d="M{left},{y:.1f} H{right}" stroke="#ddd"/>'
                         f'<text x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
            value += tick
        parts.append(f'<path d="M{left},{top} V{bottom} H{right}" fill="none" stroke="#333"/>'
                     f'<text x="{right}" y="{bottom + 14}" text-anchor="end">{x_label} '
                     f'(to {x_top:g})</text><text x="{left}" y="{top - 6}">{y_label}</text>')
        for number, (name, values) in enumerate(series.items()):
            colour = COLOURS[number % len(COLOURS)]
            path_data = " ".join(f"{'M' if i == 0 else 'L'}{place(*p)[0]:.1f},{place(*p)[1]:.1f}"
                                 for i, p in enumerate(values))
            parts.append(f'<path d="{path_data}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
                         f'<text x="{left + 8}" y="{top + 14 + 13 * number}" fill="{colour}">'
                         f'{name}</text>')
    parts.append("</svg>")
    with open(path, "w") as out:
        out.write("\n".join(parts) + "\n")
