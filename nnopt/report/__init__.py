"""One self-contained HTML page of a run, a sweep or a folder of many: ``nnopt report DIR``.

``points`` finds what there is, finished or not; ``gather`` makes the records of the page, with
``curves`` and ``pictures``; ``page`` fills ``page.html`` with them, the style and the scripts,
which are plain files beside this one.
"""
