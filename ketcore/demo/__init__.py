"""The job behind `ketcore demo`: the same text classifier with eight embedding tables, on real data.

    data      sentences as sparse averaging matrices
    tables    the embedding tables: start, rows, vjp
    train     the classifier, its gradient, Adam, the loop over epochs
    report    the printed table, the JSON records, the answers to a sentence, the picture

NumPy, SciPy and ketcore alone: every gradient goes through a `_vjp` of ketcore.
"""
