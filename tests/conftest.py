"""What every test shares: hypothesis judges results, never how long a loaded machine took."""

from hypothesis import settings

settings.register_profile("fieldrelay", deadline=None, print_blob=True)
settings.load_profile("fieldrelay")
