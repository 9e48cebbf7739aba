"""The results as a Markdown table, and as SVG plots that need nothing to be looked at."""

import html
import statistics

UNITS = [("proxy CPU, wide", "s/GB"), ("proxy CPU, narrow", "s/GB"), ("proxy CPU, COPY", "s/GB"), ("proxy CPU", "µs/txn"),
         ("wide read", "MB/s"), ("narrow read", "MB/s"), ("COPY", "MB/s"), ("connects,", "1/s"), ("connect", "ms"),
         ("under load", "ms"), ("beside", "ms"), ("start to ready", "ms"), ("memory", "MiB"), ("", "tps")]


def unit(measure):
    return next(word for prefix, word in UNITS if measure.startswith(prefix))


def table(names, rounds, subject="leasehold"):
    """`rounds` holds, for each measure in order, one {endpoint: value} a round. Ratios are those of one round each."""
    others = [name for name in names if name != subject] if subject in names else []
    head = ["", *names, *(f"{subject} / {other}" for other in others)]
    lines = [row(head), row(["---"] + ["---:"] * (len(head) - 1))]
    for measure, values in rounds.items():
        cells = [f"{measure}, {unit(measure)}"]
        for name in names:
            of_name = [value[name] for value in values if name in value]
            cells.append(figure(statistics.median(of_name)) if of_name else "–")
        for other in others:
            ratios = [value[subject] / value[other] for value in values if subject in value and value.get(other)]
            cells.append(ratio(ratios) if ratios else "–")
        lines.append(row(cells))
    return "\n".join(lines)


def idle_table(points, seen):
    """`seen`: {endpoint: {sessions: (KiB, files, CPU)}}."""
    lines = [row(["", *(f"{count:,} sessions" for count in points), "a session"]), row(["---"] + ["---:"] * (len(points) + 1))]
    for name, values in seen.items():
        first, last = points[0], points[-1]
        of_one = (values[last][0] - values[first][0]) / max(last - first, 1)
        lines.append(row([f"{name}, memory", *(f"{values[count][0] / 1024:.1f} MiB" for count in points), f"{of_one:.2f} KiB"]))
        lines.append(row([f"{name}, files", *(str(values[count][1]) for count in points), ""]))
        lines.append(row([f"{name}, CPU", *(f"{values[count][2] * 100:.1f} %" for count in points), ""]))
    return "\n".join(lines)


def crowd_table(seen):
    """`seen`: [(what, KiB, files)]."""
    lines = [row(["", "resident memory", "descriptors"]), row(["---", "---:", "---:"])]
    lines += [row([what, f"{memory / 1024:.1f} MiB", f"{files:,}"]) for what, memory, files in seen]
    return "\n".join(lines)


def row(cells):
    return "| " + " | ".join(cells) + " |"


def figure(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def ratio(ratios):
    middle = f"{statistics.median(ratios):.2f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}–{max(ratios):.2f})"


# Colours that can be told apart without seeing red from green.
COLOURS = ["#555555", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"]
STYLE = "text{font:12px sans-serif;fill:#333}.axis{stroke:#999}@media(prefers-color-scheme:dark){text{fill:#ddd}}"


def bars(title, names, rounds, measures, against):
    """Each measure's median, as a share of another endpoint's in the same rounds: a bar for each endpoint."""
    left, width, thick, gap = 260, 420, 14, 18
    rows, height = [], 40
    for measure in measures:
        values = rounds.get(measure, [])
        shares = {}
        for name in names:
            ratios = [value[name] / value[against] for value in values if name in value and value.get(against)]
            if ratios:
                shares[name] = (statistics.median(ratios), min(ratios), max(ratios))
        if shares:
            rows.append((measure, shares, height))
            height += thick * len(shares) + gap
    if not rows:
        return None
    longest = max(share[2] for _, shares, _ in rows for share in shares.values()) * 1.15
    scale = width / longest
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height}" role="img">',
             f"<title>{html.escape(title)}</title><style>{STYLE}</style>",
             f'<text x="8" y="20" font-weight="bold">{html.escape(title)}</text>',
             f'<line class="axis" x1="{left + scale:.1f}" y1="28" x2="{left + scale:.1f}" y2="{height - 8}" stroke-dasharray="3 3"/>']
    for measure, shares, top in rows:
        parts.append(f'<text x="8" y="{top + 12}">{html.escape(measure)}</text>')
        for index, (name, (middle, least, most)) in enumerate(shares.items()):
            y = top + index * thick
            colour = COLOURS[names.index(name) % len(COLOURS)]
            parts.append(f'<rect x="{left}" y="{y}" width="{middle * scale:.1f}" height="{thick - 3}" fill="{colour}"/>')
            parts.append(f'<line x1="{left + least * scale:.1f}" x2="{left + most * scale:.1f}" y1="{y + 5.5}" y2="{y + 5.5}" '
                         f'stroke="#000" stroke-opacity=".5"/>')
            parts.append(f'<text x="{left + most * scale + 6:.1f}" y="{y + 10}">{html.escape(name)} {middle:.2f}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
