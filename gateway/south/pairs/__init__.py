"""Pair patches for nodes: made on demand, once per pair, by a process of its own."""
