"""Import of published weights, and export of models to other frameworks."""
