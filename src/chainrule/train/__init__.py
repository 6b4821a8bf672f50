"""Training: one loop for every method, recipes that say what to run, and runs that survive being killed."""
