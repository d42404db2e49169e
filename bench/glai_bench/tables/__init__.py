"""GLAI, a linear model, scikit-learn's MLP and gradient boosting, all at their defaults, on tables."""
