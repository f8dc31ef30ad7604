"""Campaigns: bad input made from the types, and random faults on testbed hosts. `make campaign SEED=…`; each figure is
to be zero, and a seed brings the same cases again."""
