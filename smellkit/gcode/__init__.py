"""What a milling machine is doing, read from sensors on its frame: the operation and the line of G-code."""
