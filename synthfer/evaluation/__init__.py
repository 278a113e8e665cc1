"""The cross-dataset evaluation: scores of classifiers with intervals, paired tests, fairness and calibration."""
