"""`python -m smellkit` is the same as `smellkit`."""

from smellkit.cli import main

if __name__ == "__main__":
    main()
