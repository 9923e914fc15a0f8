"""Networks in PyTorch with the published state-dict names, and published weights."""
