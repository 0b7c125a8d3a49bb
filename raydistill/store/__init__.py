"""What is kept: distilled sets and banks as Arrow, in a folder or an object store, and checkpoints."""
