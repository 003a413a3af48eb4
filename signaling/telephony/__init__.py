"""Telephone calls that a carrier or a PBX brings over a socket of its own."""
