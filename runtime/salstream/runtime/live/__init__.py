"""Cameras that run for months: they fail and come back, several share one model, all are watched."""
