"""The process that ships the log of pools to receivers."""
