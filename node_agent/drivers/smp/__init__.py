"""Microcontrollers that speak SMP: what they say of their images, the line to them, and what is known of their images."""
