"""``python -m lraee``: see `lraee.cli`."""

from lraee.cli import main

if __name__ == "__main__":
    main()
