"""`python -m mms`: the one entry; imports nothing until a command is parsed."""

if __name__ == "__main__":
    from mms.cli import main

    main()
