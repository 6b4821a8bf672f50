"""Numbers to figures and pages: SVG and self-contained HTML from plain Python values, and tables for the terminal.

A figure is a frozen dataclass that draws itself at any width; a page is a list of sections that writes one HTML file
with nothing to fetch. No torch, no numpy, no plotting library.
"""
