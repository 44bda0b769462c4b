"""``python -m builder``."""

from builder.cli.main import main

main()
