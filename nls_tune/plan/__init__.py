"""The plan of a search, checked before anything starts."""
