"""Which chainrule this is: the number of ``pyproject.toml``, for those inside, who do not import the face."""

__version__ = "0.1.0"
