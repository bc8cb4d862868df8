"""One self-contained HTML page of a run, a sweep or a folder of many: ``nnopt report DIR``.

``points`` finds the points, finished or not. ``gather`` creates the data of the page, with
``curves`` and ``plots``. ``page`` fills ``web/page.html`` with the data, the style and the
scripts.
"""
