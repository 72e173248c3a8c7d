"""Release plans: which bundle to which devices, in which order, and what must hold between them at every moment."""
