"""One module per bootloader."""
