"""Collects what PyInstaller cannot see: modules that are imported by name, and files of data."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules


def _is_of_an_application(name):
    return not name.startswith(("keras_trim._pyinstaller", "keras_trim.demo"))


hiddenimports = collect_submodules("keras_trim", filter=_is_of_an_application)
datas = collect_data_files("keras_trim")
