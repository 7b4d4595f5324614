"""The registry without input or output: parsed requests in, effects out. Start reading at `effects.py`."""
