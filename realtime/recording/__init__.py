"""What was really heard, as a file: both sides of a call on one timeline, written while the call goes on."""
