"""Training loops and losses; nothing here imports Ray."""
