"""The command line of a search: ``python -m nls_tune.search``."""

from nls_tune.cli.search import app as app

if __name__ == "__main__":
    from nls_tune.cli.exit import exit_with

    exit_with(app)
