"""Questions that the results answer: pure functions from rows to frozen dataclasses."""
