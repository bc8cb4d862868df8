"""One self-contained HTML page of a run, a sweep or a folder of many: ``nnopt report DIR``.

``points`` finds the points, ``gather`` creates the data of the page, and ``page`` fills
``web/page.html`` with the data, the style and the scripts.
"""
