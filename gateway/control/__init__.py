"""The operator's door: a Unix socket of the running gateway, where the kernel says who is calling."""
