"""Engines that need no network: recogniser, voice and demo chat. Importing this imports no engine."""
