"""The trainers that ship with selfcfg, each found by its entry-point name."""

if __name__ != "selfcfg.trainers":
    raise ImportError("this folder is the package selfcfg.trainers; import it under that name")
