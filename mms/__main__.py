"""`python -m mms`: the one entry; stays light, because multiprocessing imports it once more in each worker process."""

if __name__ == "__main__":
    from mms.cli import main

    main()
