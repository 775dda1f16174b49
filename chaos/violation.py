"""The one exception of a trial: the promise was broken, with the evidence in words."""


class Violation(Exception):
    """What was promised and did not hold."""
