"""What can go wrong for a person who uses the program, with the exit code each kind ends in."""


class KDTalkerError(Exception):
    """One clear sentence for the user: what was found, what was wanted, what to do."""

    exit_code = 1


class InputError(KDTalkerError):
    """The input or the call cannot be used as it is (exit code 2)."""

    exit_code = 2


class OutputError(KDTalkerError):
    """The input was fine, the result could not be written (exit code 1)."""
