"""A stand-in for accelerate (README.md beside this folder)."""
