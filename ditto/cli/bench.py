"""`ditto bench`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    text = "Measure the speed and memory of a tree and, on request, of Hugging Face on the same weights."
    parser = commands.add_parser("bench", help="measure speed and memory", description=text)
    parser.add_argument("tree", metavar="OUT", type=Path, help="an engine tree")
    parser.add_argument(
        "--against",
        metavar="MODEL",
        nargs="?",
        const="manifest",
        help="also measure Hugging Face: a directory or hub id (default: the checkpoint that the tree was built from)",
    )
    parser.add_argument(
        "--session", choices=("auto", "reference", "tensorrt"), default="auto", help="what runs the tree"
    )
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        action="extend",
        default=[],
        metavar="N",
        help="batch sizes (default: 1, 4 and the largest)",
    )
    parser.add_argument(
        "--context", type=int, nargs="+", action="extend", default=[], metavar="N", help="prompt lengths (default 600)"
    )
    parser.add_argument("--new-tokens", type=int, default=128, metavar="N", help="tokens of an answer (default 128)")
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        metavar="N",
        help="repeats of each measurement; the median is reported (default 5)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=420,
        metavar="S",
        help="after this, no measurement of a baseline is started (default 420)",
    )
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write the figures to this file after each measurement"
    )
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="draw the times into this file")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table; exit code 1 if a measurement of the tree failed."""
    from ditto.bench.plan import Plan
    from ditto.bench.plot import MARK, plot, require
    from ditto.bench.report import Report
    from ditto.bench.suite import bench
    from ditto.engine import EngineTree
    from ditto.outputs import check_file, write_file

    def keep(report: Report) -> None:
        if options.json is not None:
            data = {"made_by": MARK, **report.to_json()}
            write_file(options.json, (json.dumps(data, indent=1) + "\n").encode(), MARK)

    for path in (options.json, options.plot):
        if path is not None:
            check_file(path, MARK)
    if options.plot is not None:
        require()
    plan = Plan(tuple(options.batch), tuple(options.context), options.new_tokens, options.repeats, options.seconds)
    report = bench(EngineTree.open(options.tree), plan, options.session, options.against, keep)
    keep(report)
    print(report.text())
    if options.plot is not None:
        plot(report, options.plot)
    return int(any(failure.startswith("ditto,") for failure in report.failures))
