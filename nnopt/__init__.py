"""Train every network twice, by hand in NumPy and in PyTorch, from one YAML."""

__version__ = "0.1.0"
