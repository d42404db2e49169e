"""The methods of merging by name, which a parser of arguments reads without waiting for what they import."""

METHODS = ("samples", "activations_classes", "statistics")
