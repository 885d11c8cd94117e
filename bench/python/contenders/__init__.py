"""Who contends: EventPy, its peers, and the limits of the machine, one file each."""
