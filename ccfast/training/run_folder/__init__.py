"""What a run leaves on disk: its folder, claimed by one run at a time, with records and checkpoints."""
