"""Mistakes of the user are told in one line; mistakes of the program keep their traceback."""


class UserError(Exception):
    """Something the user can put right. The message says what is wrong, where, and what to do."""
