"""`python -m fast_litellm` is `fl-shm`."""

import sys

from fast_litellm._cli import main

sys.exit(main())
