"""Questions that the results answer: pure functions from rows to frozen dataclasses.

Everywhere here ``trials`` and ``epochs`` are rows of ``trials/`` and ``epochs/``, and ``levels`` is the order of the
noise levels, by default that of their first rows. Accuracies and noise rates are fractions. A noise rate, known or
estimated, is None where it is unknown, a noise-cancelling rate where it does not exist, test accuracies without a test
set. K is the number of classes.
"""
