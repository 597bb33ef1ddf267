"""Benchmarks of ccfast, its references and the usual peers, after a check that they compute the same thing."""
