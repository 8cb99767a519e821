"""Runs behind a URL: files of an object store or another file system, the mirror of a run there, copies of it here."""
