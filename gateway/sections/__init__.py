"""Sections of the configuration that stand for themselves; `gateway.config` puts them together."""
