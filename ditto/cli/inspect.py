"""`ditto inspect`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ditto.cli.console import show_json

if TYPE_CHECKING:
    from ditto.runtime.inspection import EngineReport, TreeReport


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    text = "Describe a tree's engines, their origin and their build. Needs no GPU and no weights."
    parser = commands.add_parser("inspect", help="describe a tree", description=text)
    parser.add_argument("tree", metavar="OUT", type=Path, help="an engine tree")
    parser.add_argument("--layers", action="store_true", help="list every layer and the module it comes from")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page that holds everything")
    parser.add_argument("--json", action="store_true", help="print one object, sizes in bytes")
    parser.add_argument("--verify", action="store_true", help="hash every file of the tree first, large ones too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report, or write it as an HTML page."""
    from attrs import asdict

    from ditto.cli.page import MARK, page
    from ditto.engine import EngineTree
    from ditto.outputs import check_file, write_file
    from ditto.runtime.inspection import inspect

    if options.html is not None:
        check_file(options.html, MARK)
    tree = EngineTree.open(options.tree)
    if options.verify:
        tree.check()
    report = inspect(tree)
    if options.html is not None:
        write_file(options.html, page(report).encode(), MARK)
    if options.json:
        show_json(asdict(report))
    elif options.html is None:
        print(report_text(report, options.layers))
    return 0


def report_text(report: TreeReport, layers: bool = False) -> str:
    """The report as text for the terminal."""
    from ditto.cli.tree import fact_text, identity, tree_text
    from ditto.engine import EngineTree

    manifest = report.manifest
    lines = [tree_text(EngineTree(Path(report.root), manifest)), ""]
    lines += table(identity(manifest))
    if report.facts:
        lines += ["", "model", *table({name: fact_text(value) for name, value in report.facts.items()})]
    for name, engine in report.engines.items():
        lines += ["", name, *_engine_lines(engine)]
        if layers:
            lines += ["", *table_rows([[row.layer, ", ".join(row.outputs), row.module] for row in engine.layers])]
    lines += ["", "build", *stage_lines(report)]
    return "\n".join(lines)


def stage_lines(report: TreeReport) -> list[str]:
    """Lines for the stages of the build, with time and peak memory."""
    from ditto.units import size_text

    rows = [
        [f"{stage['name']} {stage['detail']}".strip(), f"{stage['seconds']:.1f} s", size_text(stage["peak_bytes"])]
        for stage in report.manifest.stages
    ]
    return table_rows(rows)


def _engine_lines(engine: EngineReport) -> list[str]:
    from ditto.cli.plan import kinds_lines, listed, spec_lines, together
    from ditto.cli.tree import engine_text
    from ditto.units import size_text

    record = engine.record
    weights = f"{size_text(engine.constant_bytes)} from {record.weights}"
    lines = [f"  engine      {engine_text(engine)}, {record.spec.dtype}; weights {weights}"]
    lines += kinds_lines(engine.weight_kinds)
    for title, specs in (("inputs", record.inputs), ("outputs", record.outputs)):
        lines += listed(title, together(specs))
    if record.external_weights:
        lines.append(f"  external    {len(record.external_weights)} weights are inputs, bound from the checkpoint")
    lines += spec_lines(record.spec)
    kinds = sorted(record.layers.items(), key=lambda item: -item[1])
    lines.append(f"  layers      {sum(record.layers.values())}: {', '.join(f'{n} {kind}' for kind, n in kinds)}")
    return lines


def table(entries: dict[str, str]) -> list[str]:
    """Lines of names and values in two aligned columns."""
    return table_rows([[name, value] for name, value in entries.items()])


def table_rows(rows: list[list[str]]) -> list[str]:
    """Lines of rows with aligned columns; the last column may have any width."""
    if not rows:
        return []
    widths = [min(max(len(row[column]) for row in rows), 60) for column in range(len(rows[0]) - 1)]
    return [
        "  " + "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows
    ]
