"""Other people's nets: compact equals masked, or declined with the reason; never wrong, never an exception."""
