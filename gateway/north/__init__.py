"""Towards upstream servers."""
