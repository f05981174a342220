"""Text classifiers whose embedding tables take equal bytes: python -m bench.tasks.

corpora       CLINC150, and IMDB of a folder, as numbers
contestants   the tables, each with as many numbers as the bytes hold
runs          rates chosen on validation, seeds, a file that a run goes on from
__main__      the commands
"""
