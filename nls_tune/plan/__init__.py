"""What a search is going to do, checked before anything starts."""
