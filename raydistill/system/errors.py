"""The things that can go wrong by somebody's choice rather than by a bug."""


class UserError(Exception):
    """Something the user wrote or pointed at cannot work.

    The message is one line that names the setting or file and what would be right. The command line prints it
    without a traceback and ends with exit code 2.
    """


class Lost(UserError):
    """Another process that the work needs is gone, by no fault of the settings; the last checkpoint is still good."""


class Diverged(Exception):
    """The distillation left the finite numbers; what was best before that is kept."""


class Stopped(Exception):
    """The user asked to stop; what was done is kept, and the same command goes on from there."""
