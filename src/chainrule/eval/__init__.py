"""How good a model is, and what it cost: bits per byte, the ladder up to the truth, chats, intervals, and the report.

Models come as arguments; nothing here knows a particular one. ``results`` holds the numbers as plain dataclasses,
``findings`` what follows from them, ``report`` and ``summary`` show them.
"""
