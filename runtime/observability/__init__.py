"""What the operator sees of a running registry: metrics and log lines.

Nothing of it costs anything until the configuration asks for it, and nothing of it ever holds a secret.
"""
