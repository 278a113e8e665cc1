"""Reports for people: one self-contained page per dataset, audit and matrix, and tables for the terminal."""

from synthfer.report.gallery import gallery

__all__ = ["gallery"]
