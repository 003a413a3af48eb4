"""What holds for every test."""

from hypothesis import settings

# How long one example takes depends on what else the machine does, and says nothing about the code.
settings.register_profile("ours", deadline=None)
settings.load_profile("ours")
