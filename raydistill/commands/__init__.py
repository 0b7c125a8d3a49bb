"""The commands, with their progress, their tables, and the doctor."""
