"""Measurements of the running product from outside. Nothing here is imported by the packages or shipped with them."""
