"""`python -m dbwatch`."""

from dbwatch.cli.commands import main

main()
