"""Programs that bring calls to a server from elsewhere: clients of both sides, part of neither."""
