"""Metrics that need a model: functions of a loaded checkpoint that return a value for each sample."""
