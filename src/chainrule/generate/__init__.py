"""log p to tokens: the engine that serves many requests at once, and the text that comes out of it."""
