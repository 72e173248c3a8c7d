"""What an update is: bundles, chunks, trust, store and wire; no device and no server."""
