"""`python -m mms`: the one entry; imports nothing until a command is parsed."""

import gc

if __name__ == "__main__":
    # Importing makes many objects and next to no garbage: looking for it again and again is a tenth of a start.
    gc.disable()
    from mms.cli import main

    gc.enable()
    main()
