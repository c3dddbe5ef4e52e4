"""`python -m deepavfusion` is the `deepavfusion` command."""

import sys

from deepavfusion.cli import main

sys.exit(main())
