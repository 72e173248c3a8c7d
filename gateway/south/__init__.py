"""Towards the nodes."""
