"""Recipes that ship, and the runs of many stages that end in one report."""
