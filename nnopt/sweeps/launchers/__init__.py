"""Launchers: who runs the points of a sweep."""
