"""Export a run to one file for inference: `python -m train.export RUN --out FILE [--note TEXT] [--licence TEXT]`.

The file holds the EMA weights, matrices as float16, and in its header the model's dimensions, normalisation, keypoint
space and model card: `inference.py --checkpoint FILE` loads it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from kdtalker.core.errors import InputError
from kdtalker.diffusion.model import DiffusionMotionModel
from train.harness.command import command
from train.harness.run import LOG_FILE
from train.motion.trainer import MODEL_FILE

LICENCE = "not stated: rights in the footage and in the model are for you to clear"


def export(run: Path, out: Path, note: str, licence: str) -> DiffusionMotionModel:
    """Write the model of the run's last validation; return it as read back from the file. Raises InputError where the
    run has none yet, OutputError where the file cannot be written."""
    model = DiffusionMotionModel.load(run / MODEL_FILE) if (run / MODEL_FILE).exists() else None
    if model is None:
        raise InputError(f"'{run}' holds no model yet; `python -m train.motion CONFIG` writes one when it validates.")
    rows = [json.loads(line) for line in (run / LOG_FILE).read_text("utf-8").splitlines()]
    entries = {"licence": licence, "figures": json.dumps(rows[-1])} | ({"note": note} if note else {})
    replace(model, card=model.card | entries).save(out)
    return DiffusionMotionModel.load(out)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Make one file of a run, for inference.py --checkpoint.")
    parser.add_argument("run", type=Path, help="folder that `python -m train.motion` wrote")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--note", default="", help="what else people should know, for the card")
    parser.add_argument("--licence", default=LICENCE, help="for the card")
    options = parser.parse_args()
    model = export(options.run, options.out, options.note, options.licence)
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MB, keypoint space '{model.space}', "
          f"audio by '{model.config.audio_encoder}'")  # fmt: skip
    for name, text in model.card.items():
        print(f"  {name}: {text}")


if __name__ == "__main__":
    main()
