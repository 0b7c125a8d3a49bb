"""The machine below: files and addresses, locks, devices, printing, and errors."""
