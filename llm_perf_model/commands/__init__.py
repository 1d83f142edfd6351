"""The commands: flags in, a report out. They print nothing themselves."""
