"""Devices and upstreams that misbehave on demand."""
