"""The README's plot, from the figures of benchmarks/README.md: `python -m benchmarks.plot > docs/images/h200.svg`."""

from __future__ import annotations

from attrs import frozen

_WIDTH, _HEIGHT, _LEFT, _BAR = 760, 300, 190, 400
# Longer bars are cut, and say so.
_LONGEST = 4.0
_COLOURS = {"Ditto": "#0969da", "Hugging Face, torch.compile": "#8c959f", "Hugging Face, eager": "#d0d7de"}


@frozen
class Row:
    """One task: the time of each contender, in the order of the legend."""

    task: str
    unit: str
    times: tuple[float, float, float]


# LLaVA-1.5-7B's shape, float16, one H200, all in one run (benchmarks/README.md).
ROWS = (
    Row("vision, 4 images", "ms", (4.70, 3.94, 14.9)),
    Row("prefill, 4 x 600 tokens", "ms", (65.0, 73.5, 84.1)),
    Row("decode, 4 rows, per step", "ms", (5.11, 5.43, 73.4)),
    Row("2 answers of 128 tokens", "s", (0.646, 0.723, 8.1)),
)


def svg(rows: tuple[Row, ...] = ROWS) -> str:
    """Bars whose length is the time relative to Ditto's."""
    described = "; ".join(
        f"{row.task}: " + ", ".join(f"{name} {time:g} {row.unit}" for name, time in zip(_COLOURS, row.times))
        for row in rows
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-labelledby="title desc" font-family="system-ui, sans-serif">',
        '<title id="title">LLaVA-1.5-7B, float16, on one H200: time per task, shorter is faster</title>',
        f'<desc id="desc">{described}</desc>',
        "<style>text{font-size:13px;fill:#1f2328}.figure{font-size:12px;fill:#57606a}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        '<text x="12" y="22" style="font-size:15px;font-weight:600">LLaVA-1.5-7B, float16, one H200: time per task, '
        "shorter is faster</text>",
    ]
    for index, row in enumerate(rows):
        top = 44 + 58 * index
        lines.append(f'<text x="{_LEFT - 8}" y="{top + 25}" text-anchor="end">{row.task}</text>')
        for bar, (time, colour) in enumerate(zip(row.times, _COLOURS.values())):
            ratio, y = time / row.times[0], top + 16 * bar
            width = min(ratio, _LONGEST) / _LONGEST * _BAR
            cut = f" (bar cut: {ratio:.0f} x)" if ratio > _LONGEST else ""
            lines.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="13" fill="{colour}"/>')
            label = f"{time:g} {row.unit}{cut}"
            lines.append(f'<text class="figure" x="{_LEFT + width + 5:.1f}" y="{y + 11}">{label}</text>')
    x = _LEFT
    for name, colour in _COLOURS.items():
        lines.append(f'<rect x="{x}" y="{_HEIGHT - 19}" width="11" height="11" fill="{colour}"/>')
        lines.append(f'<text class="figure" x="{x + 16}" y="{_HEIGHT - 9}">{name}</text>')
        x += 40 + 7 * len(name)
    return "\n".join([*lines, "</svg>"])


if __name__ == "__main__":
    print(svg())
