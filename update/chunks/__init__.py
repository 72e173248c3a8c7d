"""zchunk: format, chunker, delta plans and byte ranges."""
