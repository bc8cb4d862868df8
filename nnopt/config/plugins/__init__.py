"""Plug-ins: the registry of their components, and loading.

Plug-ins import classes from ``nnopt``; see ``docs/plugins.md``.
"""
