"""Entry point of `python -m ditto`."""

from ditto.cli.main import program

if __name__ == "__main__":
    program()
