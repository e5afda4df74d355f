"""All rows."""

from __future__ import annotations

from abuse import cases_arguments, cases_checkpoints, cases_films, cases_motions, cases_pictures, cases_sounds
from abuse.case import Case

MODULES = (cases_arguments, cases_pictures, cases_sounds, cases_films, cases_motions, cases_checkpoints)
CASES: list[Case] = [case for module in MODULES for case in module.CASES]
