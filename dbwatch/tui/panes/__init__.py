"""The panes of the screen, one file each: a pure function of frame and choice, and a thin widget around it."""
