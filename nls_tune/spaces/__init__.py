"""Settings of a training, and the spaces that are searched for them."""
