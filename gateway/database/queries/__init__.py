"""Queries by table: each takes the caller's transaction and returns records, never rows."""
