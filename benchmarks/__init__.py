"""Measured side by side, on this machine. Figures are printed and kept in latest.json, never asserted."""
