"""How PyInstaller freezes applications that use this package: it finds the folder by itself.

https://pyinstaller.org/en/stable/hooks.html#provide-hooks-with-package
"""

import pathlib


def get_hook_dirs():
    return [str(pathlib.Path(__file__).parent)]
