"""The main job on embedded defaults."""
