"""For tests of what users build: engines of their own, held to the contract of `realtime.adapters.base`."""
