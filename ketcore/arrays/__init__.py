"""What differs between array libraries, and what is checked of arrays: everything above is written once."""
