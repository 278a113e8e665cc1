"""How `builtin:faces`, the small text-to-image model that ships with the package, is trained on drawn faces."""
