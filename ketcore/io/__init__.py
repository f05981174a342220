"""Files of kets and operators, and tables of other packages.

    saved              objects in files: `save`, `load`
    contents           what a file holds of an object of each kind, and the object that this makes
    file_words         the words of a table in its file: `load_words`
    paths              paths, and errors that name them
    small_numbers      arrays of 8, 4 or 2 bits a number as tensors of a file, and back
    tensor_values      arrays of any library as tensors of a file, and back
    tensor_header      the header of a file, written and checked
    tensor_bytes       the bytes of tensors: read, mapped into memory, written in the place of an older file
    word2ket_tables    tables of the word2ket package

Nothing is pickled, and nothing in a file is trusted.
"""

from ketcore.io.file_words import load_words
from ketcore.io.saved import load, save
from ketcore.io.word2ket_tables import load_word2ket

__all__ = ["load", "load_word2ket", "load_words", "save"]
