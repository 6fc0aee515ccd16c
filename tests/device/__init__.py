"""Another machine: remote builds over a real sshd on this one. Skipped, with the reason, where none is installed."""
