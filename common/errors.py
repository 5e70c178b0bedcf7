"""The one error that is the user's to mend."""


class UserError(ValueError):
    """A wrong option, file or environment: its message says, in one line, what is wrong and what to do.

    From Python it is a `ValueError`; on the command line it becomes that one line and exit code 2.
    """
