"""Guards: checks that say whether scores on test data can be believed, and the verdicts that they give."""
