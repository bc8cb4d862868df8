"""Architectures as data: records of layers, shape inference, builders and initial weights."""
