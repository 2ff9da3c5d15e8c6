"""The one exception that is a user's mistake or circumstance: shown as a single line, exit code 2, no traceback."""


class UserError(Exception):
    """What is wrong, with the offending value, and what to do about it, in one sentence."""
