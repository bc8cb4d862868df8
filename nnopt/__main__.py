"""``python -m nnopt`` is the command ``nnopt``."""

from nnopt.cli.main import main

main()
