"""Which trial runs next and which one stops: ask and tell; knows neither Ray nor what is tuned."""
