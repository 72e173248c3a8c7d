"""wfx's jobs, on behalf of the nodes that it assigns for."""
