"""Tools of every process: logs, supervised threads, slots, processors, temporary folders."""
