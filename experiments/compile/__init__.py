"""Programs compiled for devices that need not be here, and what XLA says of them."""
