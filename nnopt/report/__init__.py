"""One self-contained HTML page of a run, a sweep or a folder of many: ``nnopt report DIR``.

A point is a run, or a configuration of a sweep that has not started. ``points`` finds the points,
``gather`` creates the data of the page, and ``page`` fills ``web/page.html`` with the data.
"""
