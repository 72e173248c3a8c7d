"""The command line of operators and publishers."""
