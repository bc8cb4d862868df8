"""Training: the loop, learning rates, early stopping, averages of weights, and checks."""
