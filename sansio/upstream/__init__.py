"""Pull-through caching: repositories whose content comes from other registries. Begin with `effects.py`."""
