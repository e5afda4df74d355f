"""The command line over a toy engine that other processes can load: `python tests/toy_batch.py batch ...`.

$TOY_BATCH_LOG is a file that gets a line for each portrait that is encoded, with the process that does it;
$TOY_BATCH_FRAME_S are seconds that each frame takes. A dark face kills the process, a bright one needs too much memory.
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import toy

from kdtalker.apps.cli import main
from kdtalker.pipeline import TalkingPortraitPipeline

DARK, BRIGHT = 5, 250


class LoggingRenderer(toy.ToyRenderer):
    def encode_source(self, face):
        if "TOY_BATCH_LOG" in os.environ:
            with Path(os.environ["TOY_BATCH_LOG"]).open("a", encoding="utf-8") as log:
                log.write(f"{os.getpid()} {hashlib.sha256(face.tobytes()).hexdigest()}\n")
        if face.mean() < DARK:
            os.kill(os.getpid(), signal.SIGKILL)
        if face.mean() > BRIGHT:
            raise MemoryError
        return super().encode_source(face)

    def render(self, source, motion, *, paint_mouth=True):
        for frame in super().render(source, motion, paint_mouth=paint_mouth):
            time.sleep(float(os.environ.get("TOY_BATCH_FRAME_S", "0")))
            yield frame


def load(job):
    return TalkingPortraitPipeline(toy.ToyEngine(LoggingRenderer()))


if __name__ == "__main__":
    sys.exit(main(load=load))
