"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in what the user gave; its message is one sentence that says what to do."""
