"""How a training ends early."""


class Interrupted(Exception):
    """The machine of some rank is about to be taken away. A checkpoint of the steps until now was written."""


class NotFinite(ValueError):
    """A loss or a metric is NaN or infinite; the message names the step and the samples of its batch."""
