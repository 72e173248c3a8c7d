"""Updates that travel by hand."""
