"""Eye-tracking datasets: as they lie on disk, and packed for training.

`recordings` says what a dataset gives, `readers` holds one module per dataset, `prepare` packs
one, and `packed` opens the result. Nothing here needs PyTorch.
"""
