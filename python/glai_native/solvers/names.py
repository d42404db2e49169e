"""The solvers by name, which a parser of arguments reads without waiting for what they import."""

SOLVERS = ("auto", "dual", "sgd", "statistics")
# Options, by the solvers that have them.
SOLVERS_OF = {"epochs": ("sgd",), "learning_rate": ("sgd",), "l2": ("dual", "statistics")}
