"""Values and grammars of the OCI distribution and image specifications. Parsed once, at the door; valid ever after."""
