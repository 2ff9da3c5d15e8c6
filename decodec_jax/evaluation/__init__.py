"""Evaluation: metrics, the systems to measure, suites, reports, and speed."""
