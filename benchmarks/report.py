"""The figures of benchmarks/run as a table, and as a page in Markdown with a plot in SVG beside it."""

import html
import math
import pathlib
import typing

_COLOURS = {"ptrace": "#9aa5b1", "systrap": "#1f6feb", "gvisor": "#d29922"}


def show(value: float, unit_name: str) -> str:
    if unit_name == "bytes":
        return f"{value / 1e6:.1f} MB"
    for limit, scale, name in ((1e3, 1, "ns"), (1e6, 1e3, "µs"), (1e9, 1e6, "ms")):
        if value < limit:
            return f"{value / scale:.3g} {name}"
    return f"{value / 1e9:.3g} s"


def table(results: typing.Dict[str, dict], names: typing.Sequence[str]) -> str:
    """Absolute medians, and beside them each contestant's ratio to the first."""
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for title, row in results.items():
        base = row["values"].get(names[0])
        cells = []
        for name in names:
            value = row["values"].get(name)
            if value is None:
                cells.append("–")
            elif name == names[0] or not base:
                cells.append(show(value, row["unit"]))
            else:
                cells.append(f"{show(value, row['unit'])} ×{value / base:.3g}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(results: typing.Dict[str, dict], names: typing.Sequence[str]) -> str:
    """Ratios to the host on a logarithmic axis: a row for each figure, a dot for each contestant."""
    rows = []
    for title, row in results.items():
        base = row["values"].get(names[0])
        ratios = {n: row["values"][n] / base for n in names[1:] if base and row["values"].get(n)}
        if ratios:
            rows.append((title, ratios))
    every = [r for _, ratios in rows for r in ratios.values()] or [1.0]
    low, high = math.floor(math.log10(min(every + [0.5]))), math.ceil(math.log10(max(every + [10.0])))
    left, right, step, top = 250, 880, 20, 50

    def x(ratio: float) -> float:
        return left + (math.log10(ratio) - low) / (high - low) * (right - left)

    bottom = top + step * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="920" height="{bottom + 30}" font-family="sans-serif" font-size="12">',
        f'<rect width="920" height="{bottom + 30}" fill="white"/>',
    ]
    for index, name in enumerate(names[1:]):
        at = left + 130 * index
        out.append(f'<circle cx="{at}" cy="18" r="5" fill="{_COLOURS.get(name, "#57606a")}"/><text x="{at + 10}" y="22">{name}</text>')
    out.append(f'<text x="10" y="22">time, {names[0]} = 1; less is better</text>')
    for power in range(low, high + 1):
        at = x(10.0**power)
        out.append(f'<line x1="{at}" y1="{top - 8}" x2="{at}" y2="{bottom}" stroke="{"#57606a" if power == 0 else "#d0d7de"}"/>')
        out.append(f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">×{10.0**power:g}</text>')
    for index, (title, ratios) in enumerate(rows):
        y = top + step * index + step / 2
        out.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{html.escape(title)}</text>')
        out.append(f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="#eaeef2"/>')
        for name, ratio in ratios.items():
            out.append(
                f'<circle cx="{x(ratio):.1f}" cy="{y}" r="5" fill="{_COLOURS.get(name, "#57606a")}" fill-opacity="0.85">'
                f"<title>{name}: ×{ratio:.3g}</title></circle>"
            )
    out.append("</svg>")
    return "\n".join(out) + "\n"


def write(path: str, figures: dict) -> None:
    """The page at `path`, its plot at the same name with .svg."""
    page = pathlib.Path(path)
    machine, names, results = figures["machine"], figures["contestants"], figures["results"]
    picture = page.with_suffix(".svg")
    picture.write_text(plot(results, names), encoding="utf-8")
    versions = "\n".join(f"- {name}: {version}" for name, version in machine["versions"].items())
    page.write_text(
        f"""# Benchmarks

Made by `{machine['command']}` on {machine['cpus']} CPUs, Linux {machine['kernel']}, load {machine['load'][0]:.1f} at the end. Medians; the
contestants ran in turn. `host` is runc; every other column has its ratio to it. Times wander on virtual machines: the ratios count.

{versions}

![ratios]({picture.name})

{table(results, names)}
""",
        encoding="utf-8",
    )
