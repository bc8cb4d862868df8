"""The conversion of a command line to checked configurations."""
