"""The planners that ship with selfcfg, each found by its entry-point name."""

if __name__ != "selfcfg.planners":
    raise ImportError("this folder is the package selfcfg.planners; import it under that name")
