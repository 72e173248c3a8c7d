"""Content-addressed store and journals."""
