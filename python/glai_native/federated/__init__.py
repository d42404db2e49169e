"""Federating: many owners of data train one model, on Flower, and no sample leaves its owner (extra ``federated``).

The structure is sent once, to every party that takes part; from then on only what the linear model needs travels.

- ``client.py``: what a party answers (a Flower ``ClientApp``); ``server.py``: the ``ServerApp``; both have an ``app``
  for ``flwr run``.
- ``strategy.py``: rounds, who is asked, and what is added up, with ``path_strategies.py`` (statistics, averaged
  weights, class means) and ``exact_strategy.py`` (integer sums) under it; ``structuring.py`` and ``mapping.py``: where
  the structure, and integer features, come from; ``progress.py``: the folder that a server goes on from.
- ``integers.py``: whole numbers of any size as messages carry them; ``secure.py``: totals only.
- ``simulation.py``: all parties on one machine, in Flower's simulation engine (``glai federate``).

What leaves a party, and what it reveals (README.md has the bytes). With ``method="statistics"`` a party sends, once,
the sums of its samples' path features: the gram matrix, its products with the targets, how often each path was on in
each class, and how many samples there are; with ``method="exact"`` the same of integer features, and before them sums
of raw features and of units' squares; with ``method="means"`` sums of z by class. With ``method="samples"`` it sends,
each round, its trained weights times its number of samples, and that number. Where the structure comes from the
clients, sums and squares of the raw features and selector weights go before. None of this is a sample, and none of it
is private by itself. A gram matrix of M path features is the second moment of the data seen through the gates: from a
party with fewer samples than features the samples' span can be read off, from one sample the sample itself, and
differences of two uploads show what was added in between. Class and path counts state the class balance. Trained
weights allow membership inference as those of any model do. Whoever needs more than "the data stay where they are" must
hide the single upload: everything that a party sends is a sum over its samples which the server only ever adds up, so
that secure aggregation gives the server the total alone (it quantises: the result is then no longer exact, but for
integer sums), and noise for differential privacy can be added to the same sums (it costs accuracy, and this package
does not calibrate it). The total still reveals what a total reveals: of two parties, each learns the other's part by
taking its own away.
"""
