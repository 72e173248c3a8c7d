"""The nodes of this site: what is wanted on them, and what became of it."""
