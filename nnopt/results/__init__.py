"""The files of a run: the code that writes them, and the code that reads them again."""
