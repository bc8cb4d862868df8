"""The command line, with one file for each verb (a subcommand, such as ``nnopt run``)."""
