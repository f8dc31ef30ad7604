"""Training runs of the user's: what is asked for, what is checked before, what is kept here of each. Knows no SSH."""
