"""A machine with torch and transformers alone: what reads tables is imported with towers, not used here."""

import importlib.machinery
import importlib.util
import sys
import types

NOT_NEEDED = ("pandas", "scipy", "pyarrow", "psutil", "yaml")


def without_tables():
    """Let modules that import these be imported where they are not installed; using one then is an error.

    transformers is imported first: it asks itself what is installed.
    """
    import transformers  # noqa: F401

    absent = {name for name in NOT_NEEDED if importlib.util.find_spec(name) is None}
    if absent:
        sys.meta_path.append(Absent(absent))


class Absent:
    """Finder and loader of modules that hold nothing but names."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Named(spec.name)

    def exec_module(self, module):
        pass


class Named(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Missing,), {"__module__": self.__name__})


class Missing(Exception):
    def __init__(self, *arguments, **settings):
        kind = type(self)
        super().__init__(f"{kind.__module__} is not installed, and {kind.__name__} of it is wanted")
        raise self
