"""The value objects, and what they alone use."""
