"""What the bytes of an artifact say: its graph, its tensors, its code."""
