"""The shared slot-switching agent."""
