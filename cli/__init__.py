"""Commands, watch daemon and rendering. The only room where concrete things are wired."""
