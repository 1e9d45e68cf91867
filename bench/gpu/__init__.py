"""python -m bench.gpu: checks and measures everything that needs a GPU, in one command; see __main__.py."""
