"""Many requests at once: axes, meshes, answers and files."""
