"""How every command of `train` ends: well, with one sentence on what was wrong, or quietly where nobody reads on."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import wraps

from kdtalker.core.errors import KDTalkerError, OutputError

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR}
NOBODY_READS = 141  # as other programs end when `head` has seen enough: 128 and the number of SIGPIPE


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Errors that are meant for people leave as a sentence on stderr and an exit code."""

    @wraps(main)
    def run() -> None:
        try:
            main()
            sys.stdout.flush()
        except KDTalkerError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_code)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to say when Python ends
            sys.exit(NOBODY_READS)
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            print(f"It cannot be written ({error}); make room or choose another place.", file=sys.stderr)
            sys.exit(OutputError.exit_code)

    return run
