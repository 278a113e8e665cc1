"""Readers and makers of the faces that enter the pipeline."""
