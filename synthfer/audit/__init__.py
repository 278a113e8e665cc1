"""The audit: looks for test samples in training data, and shows the pairs of samples that it finds."""
