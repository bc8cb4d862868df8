"""``nnopt report DIR``: an HTML page of a run, a sweep, or a folder of runs and sweeps.

A point is a run, or a configuration that a sweep has not started yet. ``points`` finds the points,
``gather`` creates the data of the page, and ``page`` fills ``web/page.html`` with the data.
"""
