"""Engines of the user's own, named in the settings as `kind = "python:module:Class"`, in processes of their own."""
