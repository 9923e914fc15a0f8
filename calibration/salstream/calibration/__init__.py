"""Representative clips, ranges and explicit quantization of exported graphs."""
