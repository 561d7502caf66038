"""What a training run needs around its loop: start, state, files, advice."""
