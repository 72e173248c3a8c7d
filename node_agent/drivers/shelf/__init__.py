"""Devices that run what they are handed: their images stand on a shelf here."""
