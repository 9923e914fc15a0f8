"""The errors that a user can meet. Each one is a sentence that says what to do."""


class SalstreamError(Exception):
    """Something that the user asked for could not be done.

    The message is one sentence for the user; the command line prints it without a
    traceback and ends with ``exit_code``.
    """

    exit_code = 1


class UsageError(SalstreamError):
    """The request itself is wrong: an unknown name, a missing file, a bad option."""

    exit_code = 2


class UnusableSource(SalstreamError):  # noqa: N818 - what it is, not what went wrong
    """A source answers, but with something that trying again will not change."""
