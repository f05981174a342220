"""`ketcore compress`, `decompress` and `inspect`: tables of word vectors made small, and what that loses.

    job_options      the options
    command          `compress` from its options to its output
    dense_files      `decompress` and `inspect`
    table_files      tables in files of other programs
      text_vectors   those in text
    count_files      how often words occur
    frames           what every method is told of a table
    methods          the methods and the controls; of them
      narrow_tables  few bits a number, few columns
      product_tables  product quantisation
    measures         how near one table is to another
    verdicts         what measures mean
    pictures         a picture of measures
    outputs          files that are written
    bars             progress on a terminal

None of it is public but the commands.
"""
