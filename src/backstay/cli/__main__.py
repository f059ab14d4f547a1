"""`python -m backstay.cli`."""

from backstay.cli import main

if __name__ == "__main__":
    main()
