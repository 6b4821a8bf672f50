"""Documents and chats to batches: reading, packing, and streams whose order is a pure function of (seed, step)."""
