"""Honest evaluation: metrics, statistics and the guards against test pictures that were trained on."""
