"""Architectures as data: layer records, shape inference, builders and initial weights."""
