"""`python -m mgnet` is the command `mgnet`."""

from mgnet.app.cli import command

if __name__ == "__main__":
    command()
