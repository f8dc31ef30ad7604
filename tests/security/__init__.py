"""What a hostile host, mirror or local user tries: each test throws a kind at the mechanism that stops it."""
