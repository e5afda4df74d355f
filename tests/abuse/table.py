"""All rows."""

from __future__ import annotations

from abuse import (
    cases_arguments,
    cases_checkpoints,
    cases_films,
    cases_inputs,
    cases_machine,
    cases_motions,
    cases_outputs,
    cases_pictures,
    cases_signals,
    cases_sounds,
    cases_streams,
    cases_text,
    cases_weights,
)
from abuse.case import Case

MODULES = (
    cases_arguments, cases_pictures, cases_sounds, cases_films, cases_motions, cases_checkpoints, cases_outputs,
    cases_inputs, cases_machine, cases_streams, cases_signals, cases_text, cases_weights,
)  # fmt: skip
CASES: list[Case] = [case for module in MODULES for case in module.CASES]
