"""Errors that are no bugs."""


class UserError(Exception):
    """An error that the user can correct: a setting, a file or a command that cannot work.

    The message is one line that names the setting or file and what would be right. The command line prints it
    without a traceback and ends with exit code 2.
    """


class Lost(UserError):
    """The loss of another process that the work needs. The settings are not the cause; the last checkpoint is good."""


class Diverged(Exception):
    """A loss that is not finite; the best set before it is kept."""


class Stopped(Exception):
    """A stop that the user asked for; the work so far is kept, and the same command resumes it."""
