"""The files of a run: its folder, used by one run at a time, with records and checkpoints."""
