"""Running one point: checks, training, test, and the files of the results."""
