"""Room for calibration and quantization of exported graphs; empty so far."""
