"""`python -m keras_trim` is the command `keras-trim`, though it starts by importing Keras."""

from keras_trim_cli import main

if __name__ == "__main__":
    main()
