"""Cameras that run for months: they fail and come back, several share a model, all are watched."""
