from setuptools import Extension, setup

setup(
    name="tally",
    version="1.0",
    py_modules=["tally"],
    ext_modules=[Extension("_tally", ["_tally.c"])],
    install_requires=["words"],
    entry_points={"console_scripts": ["tally=tally:main"]},
)
