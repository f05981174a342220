"""Data sets shipped with ketcore, each in a folder with its licence."""
