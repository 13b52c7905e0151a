from __future__ import annotations

import sys
from pathlib import Path

# importlib mode does not put test folders on the path; the small worlds of these tests live here.
sys.path.insert(0, str(Path(__file__).parent))
