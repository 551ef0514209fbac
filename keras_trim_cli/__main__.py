from keras_trim_cli import main

if __name__ == "__main__":
    main()
