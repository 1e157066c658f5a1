"""Report of a tree as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ditto.runtime.inspection import EngineReport, TreeReport

MARK = '<meta name=generator content="ditto inspect">'
"""What tells a page of ours from any other file."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #4a7d00; }
@media (prefers-color-scheme: dark) { :root { --accent: #a4d65e; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 2px solid var(--accent); }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p.sub { margin: .2rem 0 1rem; opacity: .75; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th { text-align: left; font-weight: 600; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
table.pairs th { width: 16rem; }
table.pairs td { overflow-wrap: anywhere; }
td.code, code { font: .84rem/1.4 ui-monospace, monospace; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.scroll { max-height: 36rem; overflow: auto; border: 1px solid var(--line); padding: 0 .6rem; }
.scroll th { position: sticky; top: 0; background: Canvas; }
input { font: inherit; padding: .3rem .5rem; margin: .3rem 0 .5rem; width: 22rem; max-width: 100%; }
.bar { display: inline-block; height: .7rem; background: var(--accent); border-radius: 2px; }
.wide { overflow-x: auto; }
.wide th { white-space: nowrap; }
.scroll .wide { overflow: visible; }
.scroll td { min-width: 12rem; overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
@media (max-width: 640px) {
  body { padding: 0 1rem; }
  table.pairs, table.pairs tbody, table.pairs tr, table.pairs th, table.pairs td { display: block; width: auto; }
  table.pairs th { border: 0; padding-bottom: 0; }
}
"""
_SCRIPT = """
for (const input of document.querySelectorAll("input[data-table]"))
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of document.getElementById(input.dataset.table).tBodies[0].rows)
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
"""


def page(report: TreeReport) -> str:
    """The HTML page of a report."""
    from ditto.cli.tree import fact_text, identity
    from ditto.units import size_text

    manifest = report.manifest
    total = sum(record.bytes for record in manifest.files.values())
    head = f"{manifest.model_type}, target {manifest.target}, {size_text(total)} in {len(manifest.files)} files"
    parts = [
        f"<h1>{escape(report.root)}</h1><p class=sub>{escape(head)}</p>",
        _pairs(identity(manifest)),
        _section("Model", _pairs({name: fact_text(value) for name, value in report.facts.items()}))
        if report.facts
        else "",
        *(_section(f"Engine: {name}", _engine(name, engine)) for name, engine in report.engines.items()),
        _section("Build", _stages(report)),
        _section("Files", _files(report)),
    ]
    if manifest.unused:
        names = _table(["checkpoint tensor"], ([name] for name in manifest.unused))
        parts.append(_section(f"Unused: {len(manifest.unused)}", f"<div class=scroll>{names}</div>"))
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        f"{MARK}"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.root)}</title><style>{_STYLE}</style>\n"
        f"<body>{''.join(parts)}<script>{_SCRIPT}</script></body></html>\n"
    )


def _engine(name: str, engine: EngineReport) -> str:
    from ditto.cli.plan import grouped
    from ditto.cli.tree import engine_text
    from ditto.units import size_text

    record = engine.record
    facts = {
        "engine": engine_text(engine),
        "dtype": record.spec.dtype,
        "weights": f"{size_text(engine.constant_bytes)}, from {record.weights}",
        "external": f"{len(record.external_weights)} weights are inputs" if record.external_weights else "",
        "passes": ", ".join(each.text() for each in record.spec.passes),
    }
    tensors = [
        [title, names[0] if len(names) == 1 else f"{pattern} ({len(names)})", spec]
        for title, specs in (("input", record.inputs), ("output", record.outputs))
        for pattern, spec, names in grouped(specs)
    ]
    ranges = [
        [profile.phase.value, name, str(size.min), str(size.opt), str(size.max)]
        for profile in record.spec.profiles
        for name, size in profile.ranges.items()
    ]
    kinds = sorted(record.layers.items(), key=lambda item: -item[1])
    rows = [[row.layer, ", ".join(row.inputs), ", ".join(row.outputs), row.module, row.source] for row in engine.layers]
    layers = _table(["layer", "inputs", "output", "module", "source"], rows, code=True, name=f"layers-{name}")
    return "".join(
        [
            _pairs({key: value for key, value in facts.items() if value}),
            "<h3>Inputs and outputs</h3>",
            _table(["", "name", "type"], tensors, code=True),
            "<h3>Profiles</h3>",
            _table(["profile", "dimension", "from", "tuned for", "to"], ranges),
            f"<h3>{sum(record.layers.values())} layers</h3>",
            f"<p>{escape(', '.join(f'{count} {kind}' for kind, count in kinds))}</p>",
            f"<details><summary>Every layer but {record.layers.get('Constant', 0)} constants</summary>",
            f'<input data-table="layers-{escape(name)}" placeholder="filter: a module, a kind, a tensor">',
            f"<div class=scroll>{layers}</div></details>",
        ]
    )


def _stages(report: TreeReport) -> str:
    from ditto.units import size_text

    stages = report.manifest.stages
    longest = max((stage["seconds"] for stage in stages), default=0) or 1
    rows = "".join(
        f"<tr><td>{escape(stage['name'])} {escape(stage['detail'])}<td class=number>{stage['seconds']:.1f} s"
        f"<td style='width:40%'><span class=bar style='width:{100 * stage['seconds'] / longest:.1f}%'></span>"
        f"<td class=number>{size_text(stage['peak_bytes'])}"
        for stage in stages
    )
    head = "<thead><tr><th>stage<th>time<th><th>peak memory</thead>"
    return f"<div class=wide><table>{head}<tbody>{rows}</tbody></table></div>"


def _files(report: TreeReport) -> str:
    from ditto.units import size_text

    files = report.manifest.files.items()
    rows = [
        [name, size_text(record.bytes).replace(" ", "\N{NO-BREAK SPACE}"), record.sha256[:16]] for name, record in files
    ]
    return _table(["file", "size", "sha256"], rows)


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}"


def _pairs(entries: dict[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in entries.items())
    return f"<table class=pairs>{rows}</table>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], code: bool = False, name: str = "") -> str:
    cell = "<td class=code>" if code else "<td>"
    body = "".join("<tr>" + "".join(f"{cell}{escape(text)}" for text in row) + "\n" for row in rows)
    head = "".join(f"<th>{escape(text)}" for text in heads)
    return f'<div class=wide><table id="{escape(name)}"><thead><tr>{head}</thead><tbody>{body}</tbody></table></div>'
