"""Gates: each scores samples and may reject them, with a reason. Nothing is dropped: a rejected row is committed."""
