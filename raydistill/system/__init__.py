"""The machine below us: files and addresses, locks, devices, what is printed, and errors."""
