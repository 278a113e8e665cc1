"""A module that cannot be imported."""

raise ZeroDivisionError("first line\nsecond line")
