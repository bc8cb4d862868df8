"""Launchers, which run the points of a sweep on this or on other machines."""
