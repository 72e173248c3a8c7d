"""How one image type is written."""
