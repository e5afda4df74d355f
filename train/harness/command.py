"""Map errors to exit codes; ignore closed pipes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import wraps

from kdtalker.core.errors import KDTalkerError, OutputError

# Errors of the operating system that mean: this output cannot be written there.
UNWRITABLE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR}
SIGPIPE_EXIT_CODE = 141  # 128 + SIGPIPE, the exit code of other programs whose reader (`head`) has closed the pipe


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a command: errors meant for people become one sentence on stderr and an exit code."""

    @wraps(main)
    def run() -> None:
        try:
            main()
            sys.stdout.flush()
        except KDTalkerError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_code)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout when it ends
            sys.exit(SIGPIPE_EXIT_CODE)
        except OSError as error:
            if error.errno not in UNWRITABLE_ERRNOS:
                raise
            print(f"It cannot be written ({error}); make room or choose another place.", file=sys.stderr)
            sys.exit(OutputError.exit_code)

    return run
