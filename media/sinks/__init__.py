"""Where a signal is shown on the gateway itself: lights, a beeper, a screen, the system's journal."""
