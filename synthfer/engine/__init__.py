"""The only package that knows Ray: sessions, and the jobs that run on them."""
