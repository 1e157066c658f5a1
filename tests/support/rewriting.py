"""Checks that a rewrite applies, and that it leaves alone what it does not fit."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from ditto.reference import TOLERANCE
from ditto.rewrite.clean import clean
from ditto.rewrite.rule import RewriteReport
from tests.support.programs import captured, run_program


def check_applies(rule, module, inputs, times=1, names=None):
    """Apply a rule or a step to a captured module: it applies so often, and the result is what it was. Returns the
    program."""
    program = captured(module, inputs, names)
    before = run_program(program, inputs, program_owner(module))
    clean(program)
    assert applied(rule(program)) == times
    program.graph.lint()
    assert_close(run_program(program, inputs, program_owner(module)), before, **TOLERANCE[before.dtype])
    return program


def check_misses(rule, module, inputs, names=None):
    """Apply a rule or a step that has nothing to do there: the program stays as it is."""
    program = captured(module, inputs, names)
    clean(program)
    before = str(program.graph)
    assert applied(rule(program)) == 0
    assert str(program.graph) == before


def applied(result):
    """How often a rule or a step applied."""
    return result.applied if isinstance(result, RewriteReport) else result


def program_owner(module):
    """The module whose parameters a program names, None for a function."""
    return module if isinstance(module, torch.nn.Module) else None
