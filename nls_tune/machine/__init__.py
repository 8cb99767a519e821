"""This computer: its GPUs, its processor, where results come from."""
