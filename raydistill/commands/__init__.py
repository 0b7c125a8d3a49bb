"""The commands: what they share, progress, tables, and the doctor."""
