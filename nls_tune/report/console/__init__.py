"""What is printed on a console."""
