"""Checkpoints become graphs: exact rewrites, ONNX, and a check against PyTorch.

Read `deployable`, `unisal`, `folding` and `graph`, in that order.
"""
