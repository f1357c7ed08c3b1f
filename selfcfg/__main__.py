"""``python -m selfcfg`` is the same program as ``selfcfg``."""

import sys

from selfcfg.cli import main

sys.exit(main())
