"""Reports for people: one self-contained page per dataset."""

from synthfer.report.gallery import gallery

__all__ = ["gallery"]
