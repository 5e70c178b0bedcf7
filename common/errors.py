"""The error for mistakes that the user can fix."""


class UserError(ValueError):
    """An invalid option, file, or environment. The message is one line: what is wrong and what to do.

    In Python it is a `ValueError`; on the command line it prints that line and exits with code 2.
    """
