"""nnopt's configuration files, installed as the package ``nnopt.conf``."""
