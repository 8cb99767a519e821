"""One session of a search: plan, search, confirm, conclude."""
