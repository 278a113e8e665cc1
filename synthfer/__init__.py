"""synthfer: balanced facial-expression datasets at scale, and proof of whether they help."""

__version__ = "0.1.0"
