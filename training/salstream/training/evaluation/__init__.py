"""`salstream evaluate`: models and baselines against where people looked.

Read `scenes` (what is scored against), `entrants` (who is scored), `evaluate` (the loop and the
means), then `report`. Only `checkpoint` needs PyTorch.
"""
