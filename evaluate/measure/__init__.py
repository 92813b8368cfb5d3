"""The command ``deepsim evaluate``: reconstructions measured against their photographs, as a table."""
