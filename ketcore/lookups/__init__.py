"""Rows as sums of products of picked leaves: one question (`Lookup`), and the engines that answer it."""
